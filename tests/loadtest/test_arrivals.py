"""Arrival times and the order of texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from contract.errors import InputError
from loadtest.arrivals import arrival_times_s, rows_to_ask
from loadtest.traffic import UNIFORM, Traffic

RATES = st.floats(0, 500) | st.just(0.0)
SHAPES = st.builds(
    Traffic,
    st.sampled_from(["poisson", "uniform", "gamma"]),
    st.floats(0.05, 20),
    st.lists(st.tuples(RATES, RATES), max_size=4)
    .filter(lambda s: not s or any(a + b > 1 for a, b in s))
    .map(tuple),
)


@given(
    rate=st.floats(0.5, 500), duration=st.floats(0.1, 20), seed=st.integers(0, 2**31),
    traffic=SHAPES,
)  # fmt: skip
def test_arrivals_hold_the_asked_rate_exactly(
    rate: float, duration: float, seed: int, traffic: Traffic
) -> None:
    """The count is rate x duration, rounded, for every shape; times are sorted and inside the run."""
    at = arrival_times_s(rate, duration, seed=seed, traffic=traffic)
    assert len(at) == max(1, round(rate * duration))
    assert (np.diff(at) >= 0).all()
    assert at.min() >= 0
    assert at.max() < duration


def test_a_seed_gives_the_same_arrivals_and_another_seed_others() -> None:
    """Arrivals are drawn from the seed and from nothing else."""
    first = arrival_times_s(50, 4, seed=3)
    assert np.array_equal(first, arrival_times_s(50, 4, seed=3))
    assert not np.array_equal(first, arrival_times_s(50, 4, seed=4))


def test_poisson_gaps_are_exponential() -> None:
    """Gaps between Poisson arrivals follow the exponential law of the asked rate (Kolmogorov-Smirnov)."""
    gaps = np.diff(arrival_times_s(100, 100, seed=1))
    assert stats.kstest(gaps, "expon", args=(0, 0.01)).pvalue > 0.01


def test_uniform_gaps_are_equal() -> None:
    """Uniform arrivals are evenly spaced."""
    assert np.allclose(np.diff(arrival_times_s(20, 2, seed=1, traffic=UNIFORM)), 0.05)


@pytest.mark.parametrize(
    ("rate", "duration"), [(0, 1), (-1, 1), (1, 0), (float("inf"), 1), (1, float("nan"))]
)
def test_impossible_rates_are_refused(rate: float, duration: float) -> None:
    """A rate or a duration that is not positive and finite is an input error."""
    with pytest.raises(InputError):
        arrival_times_s(rate, duration, seed=0)


@given(rows=st.integers(1, 50), n=st.integers(0, 300), seed=st.integers(0, 1000))
def test_every_row_is_asked_equally_often(rows: int, n: int, seed: int) -> None:
    """Counts of rows differ by at most one."""
    counts = np.bincount(rows_to_ask(rows, n, seed=seed), minlength=rows)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


def test_no_rows_cannot_be_asked() -> None:
    """An empty data set is an input error."""
    with pytest.raises(InputError):
        rows_to_ask(0, 5, seed=0)
