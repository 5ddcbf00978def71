"""The budget of work done twice, and when a call is late."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.settings.resilience import RetryRules
from serve.stages.twice import Budget, HedgeDelay


@given(
    st.floats(0, 1),
    st.floats(0, 20),
    st.lists(st.tuples(st.integers(1, 16), st.integers(0, 16)), max_size=50),
)
def test_never_more_is_done_twice_than_was_earned(
    share: float, burst: float, steps: list[tuple[int, int]]
) -> None:
    """Spent is at most the burst and the share of what was asked for."""
    budget = Budget(RetryRules(share=share, burst=burst))
    asked = spent = 0
    for texts, twice in steps:
        budget.earn(texts)
        asked += texts
        spent += twice if budget.spend(twice) else 0
        assert spent <= burst + share * asked + 1e-6


def test_without_a_share_nothing_is_done_twice() -> None:
    """0 switches it off, whatever the burst."""
    assert not Budget(RetryRules(share=0.0)).spend(1)


@given(st.lists(st.floats(0.001, 1.0), min_size=20, max_size=300))
def test_p95_is_that_of_the_last_calls(seconds: list[float]) -> None:
    """The delay is the 95th percentile of the last hundred."""
    delay = HedgeDelay("p95")
    for one in seconds:
        delay.learn(one)
    last = sorted(seconds[-HedgeDelay.CALLS :])
    assert delay.seconds == last[int(0.95 * len(last))]
    assert delay.seconds >= np.percentile(last, 90)


def test_a_delay_in_milliseconds_stays() -> None:
    """What was seen changes nothing; before enough calls p95 hedges nothing."""
    fixed = HedgeDelay(30.0)
    fixed.learn(5.0)
    assert fixed.seconds == pytest.approx(0.03)
    assert HedgeDelay("p95").seconds is None
    assert HedgeDelay(None).seconds is None
