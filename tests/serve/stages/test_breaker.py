"""The circuit breaker."""

from __future__ import annotations

import contextlib
import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.settings.resilience import BreakerRules
from serve.stages.breaker import FORGOTTEN_S, Breaker, StageUnavailable
from serve.types.priority import OFF_PATH_PRIORITY
from serve.types.recorder import BreakerState

RULES = BreakerRules(window_calls=4, min_failures=2, failure_share=0.5, open_s=1.0, max_open_s=3.0)


def opened(rules: BreakerRules = RULES) -> Breaker:
    """A breaker that has just opened, at second 0."""
    breaker = Breaker("m", rules)
    for _ in range(rules.min_failures):
        breaker.failed(0.0, "it fails")
    assert breaker.state == "open"
    return breaker


def test_it_opens_at_its_share_of_failures() -> None:
    """One of four is bearable, two of four are not."""
    breaker = Breaker("m", RULES)
    for _ in range(3):
        breaker.succeeded()
    breaker.failed(0.0, "it fails")
    breaker.check(0.0)
    breaker.failed(0.0, "it fails")
    with pytest.raises(StageUnavailable) as refused:
        breaker.check(0.5)
    assert refused.value.retry_after_s >= 0.5


def test_few_failures_never_open_it() -> None:
    """The very first call of a stage may fail."""
    breaker = Breaker("m", RULES)
    breaker.failed(0.0, "it fails")
    breaker.check(0.0)


def test_one_probe_at_a_time() -> None:
    """Half open, a second request is refused until the first has said something, or never came back."""
    breaker = opened()
    breaker.check(1.0)
    with pytest.raises(StageUnavailable):
        breaker.check(1.1)
    breaker.check(2.1)


def test_probes_that_fail_come_ever_more_seldom() -> None:
    """1 s, 2 s, then the bound of 3 s; success sets it back."""
    breaker = opened()
    now = 0.0
    for wait in (1.0, 2.0, 3.0, 3.0):
        with pytest.raises(StageUnavailable):
            breaker.check(now + wait - 0.01)
        now += wait
        breaker.check(now)
        breaker.failed(now, "it fails still")
    breaker.check(now + 3.0)
    breaker.succeeded()
    assert breaker.state == "closed"
    for _ in range(2):
        breaker.failed(now, "it fails again")
    breaker.check(now + 1.0)


def test_every_change_is_logged_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Refusals are not."""
    told: list[BreakerState] = []
    with caplog.at_level(logging.WARNING):
        breaker = Breaker("m", RULES, told.append)
        for _ in range(5):
            breaker.failed(0.0, "it fails")
            with contextlib.suppress(StageUnavailable):
                breaker.check(0.0)
        breaker.check(1.0)
        breaker.succeeded()
    assert told == ["closed", "open", "half_open", "closed"]
    assert len(caplog.records) == 3


def test_it_can_be_switched_off() -> None:
    """Then a stage is asked whatever happens."""
    breaker = Breaker("m", BreakerRules(enabled=False))
    for _ in range(100):
        breaker.failed(0.0, "it fails")
    breaker.check(0.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=60))
def test_an_open_breaker_lets_at_most_one_through_in_a_second(steps: list[tuple[bool, float]]) -> None:
    """Whatever happens, a stage that failed gets no burst of requests."""
    breaker = opened()
    now, let_through = 0.0, []
    for fails, after in steps:
        now += after
        with contextlib.suppress(StageUnavailable):
            breaker.check(now)
            let_through.append(now)
            if fails:
                breaker.failed(now, "it fails")
        if breaker.state == "closed":
            break
    assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in itertools.pairwise(let_through))


def test_a_probe_is_for_those_whom_a_client_waits_for() -> None:
    """Other work is refused until the breaker is closed, and leaves the probe to the next client."""
    breaker = opened()
    for now in (0.5, 1.0):
        with pytest.raises(StageUnavailable):
            breaker.check(now, OFF_PATH_PRIORITY)
    breaker.check(1.0)
    breaker.succeeded()
    breaker.check(1.0, OFF_PATH_PRIORITY)


def test_nobody_has_to_ask_for_a_pause_to_end() -> None:
    """Whoever looks sees it half open then, and closed once nobody has asked for a minute."""
    breaker = opened()
    assert breaker.look(0.99) == "open"
    assert breaker.look(1.0) == "half_open"
    breaker.check(30.0)
    assert breaker.look(30.0 + FORGOTTEN_S - 0.1) == "half_open"
    assert breaker.look(30.0 + FORGOTTEN_S) == "closed"
    for _ in range(2):
        breaker.failed(100.0, "it fails again")
    assert breaker.look(100.0) == "open"
    with pytest.raises(StageUnavailable):
        breaker.check(100.0)
    breaker.check(101.0)
