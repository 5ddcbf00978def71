"""Every p-value: a hand-computed case, properties on any data, and a simulated false-alarm rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from router.tune.pvalues import betting_log_capital, betting_needed_n, betting_p_value, binomial_p_value

LOSSES = hnp.arrays(np.float64, st.integers(1, 200), elements=st.sampled_from([-1.0, 0.0, 1.0]))


def test_betting_capital_of_one_row_by_hand() -> None:
    """One loss of 0 against epsilon 0.1 gives the capital that was worked out by hand.

    Value 0.5, mean 0.55, prior variance 1/4, so the bet is capped at 0.75 / 0.45.
    """
    bet = min(0.75 / 0.45, math.sqrt(2 * math.log(10) / 0.25))
    capital = betting_log_capital(np.array([0.0]), 0.1, 0.1)
    assert capital.tolist() == pytest.approx([math.log(1 + bet * 0.05)])


@given(LOSSES, st.floats(0.001, 0.9), st.floats(0.01, 0.5))
def test_betting_p_values_lie_between_zero_and_one_and_fall_with_epsilon_given_no_loss(
    losses: np.ndarray[tuple[int], np.dtype[np.float64]], epsilon: float, delta: float
) -> None:
    """Any data give a p-value in (0, 1].

    A mean loss at or above epsilon is never significant by itself at n = 1.
    """
    p = betting_p_value(losses, epsilon, delta)
    assert 0.0 < p <= 1.0
    assert np.isfinite(betting_log_capital(losses, epsilon, delta)).all()
    if (losses == 1.0).all():
        assert p == 1.0


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 0.999))
def test_the_binomial_p_value_is_the_sum_of_its_terms(events: int, more: int, epsilon: float) -> None:
    """P(Bin(n, eps) <= k) equals the plain sum, grows with k and falls with eps."""
    n = events + more
    p = binomial_p_value(events, n, epsilon)
    if n == 0:
        assert p == 1.0
        return
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(epsilon)
        + (n - k) * math.log1p(-epsilon)
        for k in range(events + 1)
    ]
    assert p == pytest.approx(min(1.0, sum(math.exp(value) for value in logs)), rel=1e-6, abs=1e-12)
    assert p <= binomial_p_value(min(n, events + 1), n, epsilon) + 1e-12
    assert binomial_p_value(events, n, min(0.9995, epsilon * 1.1)) <= p + 1e-12


def test_the_smallest_binomial_sample_is_299_at_one_point_and_five_percent() -> None:
    """299 rows without an event certify 1% at 95%, and 298 do not."""
    assert binomial_p_value(0, 299, 0.01) <= 0.05 < binomial_p_value(0, 298, 0.01)


@pytest.mark.parametrize(
    ("harm", "help_"),
    [(0.01, 0.0), (0.03, 0.02), (0.11, 0.10), (0.30, 0.29)],
    ids=["rare", "some", "many", "most"],
)
def test_betting_rejects_a_true_null_at_most_delta_of_the_time(harm: float, help_: float) -> None:
    """With the true mean at epsilon, p <= 0.1 in at most 10% of 1,500 draws (plus three standard errors)."""
    rng = np.random.default_rng(7)
    draws, n, delta = 1500, 400, 0.1
    u = rng.random((draws, n))
    losses = np.where(u < harm, 1.0, np.where(u < harm + help_, -1.0, 0.0))
    rejected = sum(betting_p_value(row, 0.01, delta) <= delta for row in losses)
    assert rejected / draws <= delta + 3 * math.sqrt(delta * (1 - delta) / draws)


def test_binomial_rejects_a_true_null_at_most_delta_of_the_time() -> None:
    """With the true rate at epsilon, p <= delta with exact probability at most delta, for many n."""
    for n in (10, 50, 299, 1000):
        for epsilon in (0.01, 0.05, 0.3):
            ps = np.array([binomial_p_value(k, n, epsilon) for k in range(n + 1)])
            pmf = np.diff(np.concatenate([[0.0], ps]))
            assert pmf[ps <= 0.1].sum() <= 0.1 + 1e-9


def test_needed_n_is_enough_in_most_draws_and_none_when_hopeless() -> None:
    """Draws of the size it names pass three times in four; a mean at or over epsilon needs no number."""
    rng = np.random.default_rng(1)
    sample = np.where(rng.random(4000) < 0.004, 1.0, 0.0)
    needed = betting_needed_n(sample, 0.01, 0.1)
    assert needed is not None
    passed = [
        betting_p_value(np.where(rng.random(needed) < 0.004, 1.0, 0.0), 0.01, 0.1) <= 0.1 for _ in range(200)
    ]
    assert np.mean(passed) > 0.6
    assert betting_needed_n(np.ones(50), 0.01, 0.1) is None
