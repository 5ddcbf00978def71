"""The exact test of losses of -1, 0 and 1: a case by hand, size by enumeration, properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from router.tune.pvalues import binomial_p_value
from router.tune.trinomial import score_statistic, trinomial_p_value

COUNTS = st.integers(1, 400).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)).filter(lambda c: c[0] + c[1] <= n)
)
EPSILONS = st.floats(0.0, 0.5)


def test_two_rows_by_hand() -> None:
    """Of two rows one is -1 and one 0: against a drop of 0, p is 1 / 3 and beta.

    As extreme are one -1, statistic 1, and two, statistic sqrt(2): with chance q (1 - q) + q^2 / 4, which at
    its highest, q = 2 / 3, is 1 / 3; the interval of q holds that.
    """
    assert trinomial_p_value(0, 1, 2, 0.0, 0.1) == pytest.approx(1 / 3 + 0.001, abs=2e-5)


def test_no_discordant_row_is_the_binomial_case() -> None:
    """Where nothing was +1 or -1 the chance is largest at q = epsilon, with no -1: (1 - epsilon)^n."""
    found = trinomial_p_value(0, 0, 299, 0.01, 0.05)
    assert found == pytest.approx(binomial_p_value(0, 299, 0.01) + 0.0005, abs=2e-5)


def test_the_statistic_takes_the_likeliest_rate_of_discordance() -> None:
    """No q on a fine grid makes the counts likelier than the one in the statistic's spread."""
    plus, minus, n, epsilon = 7, 12, 100, 0.03
    z = score_statistic(np.array([plus]), np.array([plus + minus]), n, epsilon)[0]
    q = ((n * epsilon - plus + minus) / z) ** 2 / n + epsilon**2
    grid = np.linspace(epsilon + 1e-6, 0.9, 100_000)
    likely = plus * np.log((grid + epsilon) / 2) + minus * np.log((grid - epsilon) / 2)
    likely += (n - plus - minus) * np.log1p(-grid)
    assert grid[likely.argmax()] == pytest.approx(q, abs=1e-4)


@pytest.mark.parametrize(
    ("n", "epsilon", "delta"),
    [(12, 0.0, 0.1), (12, 0.1, 0.1), (40, 0.02, 0.05), (40, 0.2, 0.1), (100, 0.01, 0.1), (100, 0.05, 0.025)],
)
def test_its_size_is_at_most_delta_whatever_the_discordance(n: int, epsilon: float, delta: float) -> None:
    """Every outcome is counted: at a drop of exactly epsilon p <= delta has a chance of at most delta.

    The discordance runs over a fine grid; at a larger drop that chance is smaller still, and it comes near
    delta somewhere, else the test would be needlessly weak.
    """
    counts = np.arange(n + 1)
    most = np.array([_boundary(m, n, epsilon, delta) for m in counts.tolist()])
    sizes: list[float] = []
    larger: list[float] = []
    for q in np.linspace(epsilon, 1.0, 800).tolist():
        for drop, kept in ((epsilon, sizes), (min(q, 1.5 * epsilon + 0.01), larger)):
            share = 1.0 if q == 0 else min(1.0, (1 + drop / q) / 2)
            below = np.where(most < 0, 0.0, stats.binom.cdf(most, counts, share))
            kept.append(float((stats.binom.pmf(counts, n, q) * below).sum()))
    assert max(sizes) <= delta
    assert max(larger) <= max(sizes) + 1e-9
    assert max(sizes) >= 0.6 * delta


def _boundary(discordant: int, n: int, epsilon: float, delta: float) -> int:
    """Return the most +1 of `discordant` rows that pass at delta, -1 for none; p grows with them."""
    low, high = -1, discordant
    while low < high:
        middle = (low + high + 1) // 2
        passed = trinomial_p_value(middle, discordant - middle, n, epsilon, delta) <= delta
        low, high = (middle, high) if passed else (low, middle - 1)
    return low


@settings(max_examples=60)
@given(COUNTS, EPSILONS, st.floats(0.01, 0.3))
def test_it_is_the_chance_of_outcomes_at_least_as_extreme(
    counts: tuple[int, int, int], epsilon: float, delta: float
) -> None:
    """At any discordance of the interval the plain sum over outcomes is no larger than p less beta."""
    plus, minus, n = counts
    p = trinomial_p_value(plus, minus, n, epsilon, delta)
    assert 0.0 < p <= 1.0
    if plus - minus >= epsilon * n:
        assert p == 1.0
        return
    beta, m = delta / 100, plus + minus
    low = special.betaincinv(m, n - m + 1, beta / 2) if m else 0.0
    high = special.betaincinv(m + 1, n - m, 1 - beta / 2) if m < n else 1.0
    observed = score_statistic(np.array([plus]), np.array([m]), n, epsilon)[0]
    a, b = np.triu_indices(n + 1)
    extreme = score_statistic(a, b, n, epsilon) >= observed - 1e-9 * max(1.0, abs(observed))
    for q in np.linspace(max(low, epsilon), high, 5).tolist() if high >= epsilon else []:
        share = 1.0 if q == 0 else min(1.0, (1 + epsilon / q) / 2)
        each = stats.binom.pmf(b, n, q) * stats.binom.pmf(a, b, share)
        assert float(each[extreme].sum()) <= (1.0 if p == 1.0 else p - beta) + 1e-4


@settings(max_examples=60)
@given(COUNTS, EPSILONS, st.floats(0.01, 0.3))
def test_worse_counts_never_look_better(counts: tuple[int, int, int], epsilon: float, delta: float) -> None:
    """A +1 in the place of a -1 raises p; so does a smaller epsilon, but for what beta's interval moves."""
    plus, minus, n = counts
    p = trinomial_p_value(plus, minus, n, epsilon, delta)
    if minus:
        assert trinomial_p_value(plus + 1, minus - 1, n, epsilon, delta) >= p - 1e-6
    assert trinomial_p_value(plus, minus, n, epsilon * 0.9, delta) >= p - 0.03


def test_nearly_normal_where_rows_are_many() -> None:
    """On a million rows p is that of the score statistic, within a hundredth."""
    plus, minus, n, epsilon = 60_000, 50_300, 1_000_000, 0.01
    z = score_statistic(np.array([plus]), np.array([plus + minus]), n, epsilon)[0]
    assert trinomial_p_value(plus, minus, n, epsilon, 0.1) == pytest.approx(
        0.5 * math.erfc(z / math.sqrt(2)) + 0.001, abs=0.01
    )


def test_no_rows_prove_nothing() -> None:
    """Without a row, or against a drop of 0 without a discordant one, p is 1."""
    assert trinomial_p_value(0, 0, 0, 0.1, 0.1) == 1.0
    assert trinomial_p_value(0, 0, 50, 0.0, 0.1) == 1.0
