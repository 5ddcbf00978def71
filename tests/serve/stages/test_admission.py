"""Who may wait, on a clock that the tests turn."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DeadlineExceeded, NotReady, Overloaded
from serve.settings.stages import BatchRules
from serve.stages.admission import Admission
from serve.stages.forecast import BatchForecast, CallForecast, Pace
from serve.stages.room import Ticket
from serve.types.priority import OFF_PATH_PRIORITY
from tests.serve.stages.test_room import ticket


def admission(each_s: float = 1.0, *, background: bool = False, **rules: float) -> Admission[Ticket]:
    """Of a stage with one lane that takes so long for an item, one item at a time, and runs one now."""
    given_rules = BatchRules.model_validate({"max_items": 1, "max_queue_s": 1e6} | rules)
    forecast = BatchForecast(given_rules.max_items, 1)
    forecast.learn(1, each_s)
    made: Admission[Ticket] = Admission("m", given_rules, forecast)
    made.admit(ticket(level=OFF_PATH_PRIORITY) if background else ticket(), 1, 0.0)
    batch, _ = made.take(0.0, 1)
    forecast.started(0, len(batch), 0.0)
    return made


def test_who_can_be_answered_in_time_waits() -> None:
    """One runs until 1, so the next ends at 2 and the one after at 3."""
    door = admission()
    assert door.admit(ticket(due_at=2.0), 1, 0.0) == []
    assert door.admit(ticket(due_at=3.0), 1, 0.0) == []


def test_a_newcomer_drives_out_the_oldest_of_its_level() -> None:
    """As many are answered either way, and the newcomer has more time left."""
    door = admission()
    oldest = ticket(due_at=2.9)
    door.admit(oldest, 1, 0.0)
    assert door.admit(ticket(due_at=2.95), 1, 0.0) == [oldest]
    assert door.room.items == 1


def test_a_newcomer_that_is_late_anyhow_is_refused() -> None:
    """Nobody is driven out for who cannot be answered in time even at the front."""
    door = admission()
    door.admit(ticket(due_at=2.0), 1, 0.0)
    with pytest.raises(Overloaded, match="in time") as refused:
        door.admit(ticket(due_at=1.5), 1, 0.0)
    assert refused.value.retry_after_s > 0
    assert door.room.items == 1


def test_a_deadline_of_the_client_is_told_as_one() -> None:
    """504 rather than 429: more time would help, not less traffic."""
    door = admission()
    late = ticket(due_at=1.5)
    late.soft, late.deadline_at = False, 1.5
    with pytest.raises(DeadlineExceeded):
        door.admit(late, 1, 0.0)


def test_the_urgent_come_first_and_the_least_urgent_go() -> None:
    """A newcomer of high priority is let in before those that wait; of these the lowest goes."""
    door = admission()
    usual, low = ticket(due_at=3.0), ticket(due_at=3.0, level=9)
    door.admit(usual, 1, 0.0)
    with pytest.raises(Overloaded):
        door.admit(ticket(due_at=2.5, level=9), 1, 0.0)
    door.admit(low, 1, 0.0)
    assert door.admit(ticket(due_at=3.0, level=1), 1, 0.0) == [low]
    assert [one.priority for one in door.room] == [1, 5]


def test_a_full_queue_has_room_for_the_more_urgent_alone() -> None:
    """Among equals the newcomer is refused; one of higher priority takes the place of the lowest."""
    door = admission(0.001, max_queue_items=3)
    first, second = ticket(level=7), ticket(level=9)
    door.admit(first, 1, 0.0)
    door.admit(second, 1, 0.0)
    with pytest.raises(Overloaded, match="full"):
        door.admit(ticket(level=9), 1, 0.0)
    assert door.admit(ticket(level=5), 1, 0.0) == [second]


def test_an_idle_stage_takes_what_comes() -> None:
    """A pace that was misjudged is put right only by running something."""
    door: Admission[Ticket] = Admission("m", BatchRules(), BatchForecast(16, 1))
    door.forecast.learn(1, 100.0)
    assert door.admit(ticket(due_at=0.1), 1, 0.0) == []
    assert door.take(0.0, 16)[0]


def test_a_stage_that_slowed_down_still_runs_something() -> None:
    """When all that waits would be late, the last one runs all the same."""
    door = admission()
    for due in (3.0, 4.0):
        door.admit(ticket(due_at=due), 1, 0.0)
    door.forecast.learn(1, 4.0)
    for _ in range(60):
        door.forecast.learn(1, 50.0)
    door.forecast.ended(0)  # type: ignore[attr-defined]
    batch, gone = door.take(1.0, 1)
    assert [one.due_at for one in batch] == [4.0]
    assert [one.due_at for one in gone] == [3.0]


def test_a_closed_door_lets_nobody_in() -> None:
    """Whatever its priority."""
    door = admission()
    door.close()
    with pytest.raises(NotReady):
        door.admit(ticket(level=1), 1, 0.0)


@given(st.lists(st.tuples(st.floats(0.0, 0.8), st.sampled_from([1, 5, 9]), st.floats(0.5, 6.0)), max_size=60))
def test_whoever_is_served_is_in_time_and_order_holds(arrivals: list[tuple[float, int, float]]) -> None:
    """At a steady pace: no answer is late, and nobody waits behind one of lower priority."""
    now, free_at = 0.0, 0.0
    forecast = BatchForecast(1, 1)
    forecast.learn(1, 1.0)
    door: Admission[Ticket] = Admission("m", BatchRules(max_items=1, max_queue_s=1e6), forecast)
    running: Ticket | None = None

    def run_until(second: float) -> None:
        nonlocal free_at, running
        while free_at <= second:
            if running is not None:
                assert free_at <= running.due_at + 1e-9 or running.expected_at == 0.0
                door.outstanding -= 1
                running = None
            forecast.ended(0)
            batch, gone = door.take(free_at, 1)
            door.outstanding -= len(gone)
            if not batch:
                return
            (running,) = batch
            assert all(running.priority <= other.priority for other in door.room)
            forecast.started(0, 1, free_at)
            free_at += 1.0

    for after, level, patience in arrivals:
        now += after
        run_until(now)
        free_at = max(free_at, now)
        try:
            gone = door.admit(ticket(due_at=now + patience, level=level), 1, now)
        except Overloaded:
            continue
        door.outstanding -= len(gone)
        run_until(now)
    run_until(now + 100.0)
    assert door.outstanding == door.room.items == 0


@given(st.floats(0.0, 0.1), st.floats(1e-5, 0.1), st.integers(0, 1000))
def test_the_pace_finds_start_and_slope(start_s: float, each_s: float, seed: int) -> None:
    """From batches of unlike sizes both parts are found; the whole of one is never misjudged by much."""
    pace = Pace()
    for n in range(200):
        items = 1 + (seed + 7 * n) % 16
        pace.learn(items, start_s + each_s * items)
    for items in (1, 8, 16):
        assert pace.of(items) == pytest.approx(start_s + each_s * items, rel=0.2)


def test_a_slow_first_call_keeps_nobody_out_for_long() -> None:
    """A stage whose first call took a second is expected to be quick again after some quick ones."""
    forecast = CallForecast(16)
    forecast.came_back(1, 0.0, 1.0)
    now = 1.0
    for _ in range(8):
        forecast.came_back(1, now, now + 0.005)
        now += 0.005
    assert forecast.ends_s(now, 10, 10) < 0.18
    pace = Pace()
    for seconds in (1.0, *[0.005] * 8):
        pace.learn(1, seconds)
    assert pace.of(1) < 0.02


def test_one_pause_changes_little() -> None:
    """A second that the machine was away does not close the door for the next twenty batches."""
    pace = Pace()
    for _ in range(50):
        pace.learn(4, 0.02)
    pace.learn(4, 1.0)
    assert pace.of(4) < 0.03


def test_a_batch_takes_a_part_of_the_time_that_there_is() -> None:
    """At 5 ms an item and 200 ms, ten items go together; without an objective as many as the rules say."""
    forecast = BatchForecast(16, 1)
    forecast.learn(16, 0.08)
    forecast.learn(4, 0.02)
    assert forecast.limit == 16
    forecast.given(0.202)
    assert forecast.limit == 10


@given(
    st.lists(
        st.tuples(st.sampled_from(["learn", "given", "late"]), st.integers(1, 64), st.floats(-1e-9, 40.0)),
        max_size=80,
    ),
    st.booleans(),
)
def test_a_forecast_bears_whatever_is_seen(seen: list[tuple[str, int, float]], remote: bool) -> None:
    """Times of no length, of half a minute, in any order: limits stay in bounds, and ends are finite."""
    forecast = CallForecast(16) if remote else BatchForecast(16, 2)
    now = 0.0
    for kind, items, seconds in seen:
        now += max(seconds, 0.0)
        if kind == "given":
            forecast.given(seconds)
        elif kind == "late":
            forecast.answered(seconds)
        elif isinstance(forecast, CallForecast):
            forecast.came_back(items, now - max(seconds, 0.0), now)
        else:
            forecast.learn(items, max(seconds, 0.0))
        assert 1 <= forecast.limit <= 16
        assert 0.0 <= forecast.ends_s(now, items, 2 * items) < inf


def test_a_remote_stage_is_judged_by_what_comes_back() -> None:
    """Another gateway that asks the same stage halves the flow, and the forecast sees it."""
    forecast = CallForecast(16)
    now = 0.0
    for _ in range(100):
        forecast.came_back(4, now, now + 0.02)
        now += 0.02
    alone = forecast.ends_s(now, 20, 20)
    for _ in range(100):
        forecast.came_back(4, now, now + 0.04)
        now += 0.04
    assert alone == pytest.approx(0.1, rel=0.2)
    assert forecast.ends_s(now, 20, 20) == pytest.approx(0.2, rel=0.2)


def test_a_window_keeps_the_queue_where_it_is_ordered() -> None:
    """What is under way comes back within a quarter of the time; one item at least."""
    forecast = CallForecast(16)
    assert forecast.window == inf
    forecast.given(0.2)
    forecast.came_back(1, 0.0, 0.005)
    assert forecast.window == pytest.approx(10.0)
    slow = CallForecast(16)
    slow.given(0.2)
    slow.came_back(1, 0.0, 5.0)
    assert slow.window == 2.0


def test_a_stage_with_a_start_cost_learns_that_larger_batches_pay() -> None:
    """After lone requests one of two is tried, and then as many as the rules say."""
    forecast = BatchForecast(16, 1)
    for _ in range(20):
        forecast.learn(1, 0.051)
    forecast.given(0.18)
    assert forecast.limit == 2
    forecast.learn(2, 0.052)
    assert forecast.limit == 16


def test_the_window_grows_while_more_comes_back() -> None:
    """Four replicas that take 51 ms for a call: the window finds them all, from one at a time."""
    forecast = CallForecast(16)
    forecast.given(0.18)
    for n in range(20):
        forecast.came_back(1, 0.051 * n, 0.051 * (n + 1))
    assert forecast.window >= 2
    now = 1.02
    for _ in range(40):
        sent = int(min(forecast.window, 4))
        for n in range(sent):
            forecast.came_back(1, now, now + 0.051 + 1e-9 * n, alone=n == 0)
        now += 0.051
    assert forecast.window >= 4


def test_parts_of_a_request_that_runs_are_not_driven_out() -> None:
    """What ran would be lost with them; who may go goes, and a part in front hides nobody who is late."""
    door = admission()
    part = ticket(due_at=2.0)
    part.stay(0.5)
    part.due_at = 100.0
    door.room.push(part)
    usual = ticket(due_at=3.5)
    door.admit(usual, 1, 0.0)
    assert door.admit(ticket(due_at=3.6), 1, 0.0) == [usual]
    assert door.room.first_due() == 3.6
    assert len(door.late(50.0)) == 1
    assert part in list(door.room)


def test_all_of_a_request_is_judged() -> None:
    """One of five items does not fit where its first part would."""
    door = admission()
    with pytest.raises(Overloaded):
        door.admit(ticket(due_at=4.0), 5, 0.0)
    door.admit(ticket(due_at=7.0), 5, 0.0)


def test_what_gives_way_to_the_more_urgent_is_told_to_come_back() -> None:
    """429 though its deadline is far; with the first part of a request all of it goes."""
    door = admission(0.001, max_queue_items=6)
    low = ticket(level=9, due_at=30.0)
    low.soft, low.deadline_at = False, 30.0
    door.admit(low, 5, 0.0)
    assert door.admit(ticket(level=1), 4, 0.0) == [low]
    told = {door.too_late(low).retry_after_s for _ in range(20)}  # type: ignore[attr-defined]
    assert len(told) == 20
    assert max(told) < 15.0
    door.forecast.started(0, 1, 1e6)  # type: ignore[attr-defined]
    assert door.too_late(low).retry_after_s < 15.0  # type: ignore[attr-defined]
    assert door.forecast.ends_s(0.0, 0, 0) >= CallForecast(16).ends_s(0.0, 0, 0) == 0.0


def test_an_escalation_drives_nobody_out() -> None:
    """It has an answer in hand; its deadline is the objective."""
    door = admission()
    door.admit(ticket(due_at=2.9), 1, 0.0)
    escalation = ticket(due_at=2.95)
    escalation.deadline_at = 2.95
    with pytest.raises(Overloaded):
        door.admit(escalation, 1, 0.0)


def test_what_no_client_waits_for_does_not_make_a_stage_busy() -> None:
    """A client's request is let in as into an idle stage; the next ones wait behind it as ever."""
    door = admission(background=True)
    assert door.outstanding == door.off_path == 1
    door.admit(ticket(due_at=1.5), 1, 0.0)
    with pytest.raises(Overloaded):
        door.admit(ticket(due_at=1.5), 1, 0.0)
    door.leave(1, OFF_PATH_PRIORITY)
    assert (door.outstanding, door.off_path) == (1, 0)


def test_what_no_client_waits_for_finds_every_stage_busy_that_holds_anything() -> None:
    """It is let in where it would be answered in time behind all others, like anything else."""
    door = admission()
    with pytest.raises(Overloaded):
        door.admit(ticket(due_at=1.5, level=OFF_PATH_PRIORITY), 1, 0.0)
    door.admit(ticket(due_at=2.5, level=OFF_PATH_PRIORITY), 1, 0.0)
    first = ticket(due_at=2.5)
    door.admit(first, 1, 0.0)
    assert door.take(1.0, 1)[0] == [first]


def test_the_flow_of_small_calls_keeps_no_larger_ones_out() -> None:
    """At 50 ms a call and 1 ms a text, eight wait for two calls, not for the flow of lone ones."""
    forecast = CallForecast(16)
    for n in range(40):
        forecast.came_back(1 + n % 2, 0.052 * n, 0.052 * n + 0.051 + 0.001 * (n % 2))
    forecast.under_way = 2
    assert forecast.ends_s(2.1, 8, 8) == pytest.approx(0.11, rel=0.1)


def test_the_share_of_its_time_that_a_newcomer_would_wait() -> None:
    """One runs until 1 and takes 1: of 5 s four are to spare, a quarter is waited, half with one more."""
    door = admission()
    assert door.wait_share(0.0, 5.0) == pytest.approx(0.25)
    door.admit(ticket(due_at=9.0), 1, 0.0)
    assert door.wait_share(0.0, 5.0) == pytest.approx(0.5)
    assert door.wait_share(0.0, 0.5) == pytest.approx(4.0)


def test_what_no_client_waits_for_makes_no_newcomer_wait() -> None:
    """Comparisons off the path are no load that a gear has to answer."""
    assert admission(background=True).wait_share(0.0, 5.0) == 0.0
