"""Stage times and the escalation budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.dataplane.escalation import EscalationBudget, StageTime


def test_a_new_stage_costs_nothing_until_it_was_seen() -> None:
    """Without experience nothing is refused."""
    assert StageTime().expected_s(9) == 0.0


@given(st.floats(0.001, 10), st.integers(1, 20))
def test_a_steady_stage_is_expected_to_take_what_it_takes(seconds: float, texts: int) -> None:
    """Constant times converge to that time, from above."""
    time = StageTime()
    for _ in range(200):
        time.learn(seconds, texts)
        assert time.expected_s(texts) >= seconds * (1 - 1e-9)
    assert time.expected_s(texts) == pytest.approx(seconds, rel=1e-3)


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_large_requests_do_not_make_small_ones_look_slow(base: float, pace: float) -> None:
    """From requests of 1 and of 100 texts, both times are learned."""
    time = StageTime()
    for _ in range(300):
        time.learn(base, 1)
        time.learn(base + 99 * pace, 100)
    assert time.expected_s(1) == pytest.approx(base, rel=0.05)
    assert time.expected_s(100) == pytest.approx(base + 99 * pace, rel=0.05)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=50))
def test_the_expectation_stays_within_reason(times: list[float]) -> None:
    """At least the quickest, at most three times the slowest."""
    time = StageTime()
    for seconds in times:
        time.learn(seconds)
    assert min(times) * 0.999 <= time.expected_s() <= 3 * max(times)


def test_a_doubted_stage_is_tried_again_some_day() -> None:
    """An estimate that keeps requests away shrinks with each of them."""
    time = StageTime()
    time.learn(10.0)
    for _ in range(500):
        time.doubt()
    assert time.expected_s() < 0.01


@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), max_size=200),
)
def test_the_share_of_escalations_never_passes_the_budget(rate: float, asks: list[tuple[int, int]]) -> None:
    """At any moment: escalations <= rate * texts + burst."""
    budget = EscalationBudget(rate, burst=5.0)
    texts = spent = 0
    for came, wanted in asks:
        budget.earn(came)
        texts += came
        granted = budget.spend(min(wanted, came))
        assert 0 <= granted <= wanted
        spent += granted
        assert spent <= rate * texts + 5.0 + 1e-6


def test_a_hungry_stream_gets_its_whole_budget() -> None:
    """When every text wants to escalate, the budget's share of them may."""
    budget = EscalationBudget(0.25)
    spent = 0
    for _ in range(4000):
        budget.earn(1)
        spent += budget.spend(1)
    assert spent == pytest.approx(1000, abs=21)


@given(st.integers(1, 256), st.floats(0.05, 0.9))
def test_large_requests_get_their_share_too(texts: int, rate: float) -> None:
    """A stream that wants less than the rate is granted in full, however its texts are bundled."""
    budget = EscalationBudget(rate)
    wanted = int(texts * rate)
    for _ in range(50):
        budget.earn(texts)
        assert budget.spend(wanted) == wanted


def test_a_budget_of_nothing_allows_nothing() -> None:
    """A rate of 0 has no burst either."""
    budget = EscalationBudget(0.0)
    budget.earn(100)
    assert budget.spend(1) == 0
