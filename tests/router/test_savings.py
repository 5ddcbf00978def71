"""What answering here would save, and how many rows it takes to know."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.tune.pvalues import binomial_p_value
from router.tune.savings import poisson_interval, rows_to_certify, savings


@given(st.floats(0.01, 0.3), st.floats(0.01, 0.3), st.floats(0, 0.8))
def test_as_many_rows_as_are_named_pass_the_test(epsilon: float, delta: float, part: float) -> None:
    """At that number a sample with the rate passes, and with one row less it does not."""
    rate = part * epsilon
    n = rows_to_certify(epsilon, delta, rate)

    assert n is not None
    assert binomial_p_value(math.ceil(rate * n), n, epsilon) <= delta
    assert n == 1 or binomial_p_value(math.ceil(rate * (n - 1)), n - 1, epsilon) > delta


def test_without_any_disagreement_it_is_the_rule_of_three() -> None:
    """No event in n rows bounds the rate at delta by 1 - delta ** (1 / n)."""
    assert rows_to_certify(0.05, 0.05, 0.0) == math.ceil(math.log(0.05) / math.log(0.95))


def test_a_rate_that_is_too_high_never_passes() -> None:
    """Where the rate is what may be, no number of rows is enough."""
    assert rows_to_certify(0.05, 0.1, 0.05) is None


def test_poisson_intervals_are_garwoods() -> None:
    """The values of the published table for 10 events at 95%."""
    assert poisson_interval(10) == pytest.approx((4.795, 18.390), abs=1e-3)
    assert poisson_interval(0)[0] == 0


def test_savings_by_hand() -> None:
    """80 of 100 answered here, at 30 USD there and 1 here, save 23 USD per 1,000."""
    found = savings(80, 100, usd_elsewhere_per_1k=30, usd_here_per_1k=1, texts=2000, days=2)

    assert found.usd_per_1k == pytest.approx(23)
    assert found.usd_per_day == pytest.approx(23)
    low, high = found.usd_per_day_interval or (0.0, 0.0)
    assert low < 23 < high
    assert found.usd_per_1k_interval[0] == pytest.approx(30 * found.share_interval[0] - 1)


def test_a_days_interval_holds_the_truth_often_enough() -> None:
    """Over draws of traffic and answers, at least the share that was promised."""
    rng = np.random.default_rng(0)
    truth = 0.7 * 0.5 * 400 / 1000
    hits = 0
    for _ in range(300):
        answered, texts = int(rng.binomial(200, 0.7)), int(rng.poisson(3 * 400))
        found = savings(
            answered, 200, usd_elsewhere_per_1k=0.5, usd_here_per_1k=0.0, texts=texts, days=3, confidence=0.9
        )
        low, high = found.usd_per_day_interval or (0.0, 0.0)
        hits += low <= truth <= high
    assert hits >= 270


def test_what_cannot_be_asked_is_refused() -> None:
    """Shares outside their range and negative counts are errors."""
    with pytest.raises(ValueError, match="rows_to_certify"):
        rows_to_certify(0.0, 0.1, 0.0)
    with pytest.raises(ValueError, match="poisson_interval"):
        poisson_interval(-1)
