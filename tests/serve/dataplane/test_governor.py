"""The governor: up soon, down late, within the ladder whatever the load does."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from serve.dataplane.governor import Governor
from serve.settings.gears import GearSettings

RULES = GearSettings()
EVERY_S = 0.05


def _held(governor: Governor, share: float, seconds: float, since: float = 0.0) -> list[int]:
    """Hold the load for a while; return the gear after each look."""
    looks = round(seconds / EVERY_S)
    return [governor.look(since + (n + 1) * EVERY_S, share) for n in range(looks)]


def test_a_wait_near_the_limit_takes_the_last_gear_in_two_looks() -> None:
    """A burst is met within a tenth of a second, one look alone is not enough."""
    governor = Governor(5, 1, 0, RULES)
    assert _held(governor, 0.95, 2 * EVERY_S) == [1, 4]


def test_a_growing_wait_goes_up_a_gear_at_a_time() -> None:
    """Half of the time spent waiting is answered by one gear per window, not by the last at once."""
    seen = _held(Governor(5, 1, 0, RULES), 0.6, 1.5)
    assert sorted(set(seen)) == [1, 2, 3, 4]
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(seen))


def test_calm_goes_down_to_the_lowest_gear_and_a_load_between_stays() -> None:
    """Below `down_at` for `calm_s` a gear goes down; between the two limits nothing moves."""
    governor = Governor(5, 4, 0, RULES)
    assert set(_held(governor, 0.3, 20.0)) == {4}
    seen = _held(governor, 0.0, 10.0, since=20.0)
    assert seen[-1] == 0
    assert max(before - after for before, after in itertools.pairwise(seen)) == 1
    assert _held(Governor(5, 4, 1, RULES), 0.0, 30.0)[-1] == 1


def test_a_try_that_fails_makes_the_next_one_wait_twice_as_long() -> None:
    """Load that only the last gear bears does not make gears flap: tries get rarer, up to `most_calm_s`."""
    governor = Governor(3, 2, 0, RULES)
    tries, now = [], 0.0
    for _ in range(round(300 / EVERY_S)):
        now += EVERY_S
        before = governor.at
        governor.look(now, 0.05 if before == 2 else 0.9)
        if governor.at < before:
            tries.append(now)
    gaps = [round(after - before) for before, after in itertools.pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 4
    assert RULES.most_calm_s <= gaps[-1] < RULES.most_calm_s + 2
    assert len(tries) < 20


@given(
    st.lists(st.floats(0, 2), max_size=300),
    st.integers(2, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1), st.integers(0, n - 1))),
)
def test_it_stays_on_the_ladder_and_goes_down_a_rung_at_a_time(
    shares: list[float], ladder: tuple[int, int, int]
) -> None:
    """Whatever the load: within lowest (or where it began) and the top, and never two gears down at once."""
    rungs, at, lowest = ladder
    governor = Governor(rungs, at, lowest, RULES)
    before = at
    for n, share in enumerate(shares):
        now = governor.look(n * EVERY_S, share)
        assert min(lowest, at) <= now < rungs
        assert now >= before - 1
        before = now


def test_a_try_that_fails_goes_back_by_one_gear_only() -> None:
    """Half of what busy carries, which idle does not: the overload gears are not taken for a failed try."""
    asked = (0.62, 0.24, 0.16, 0.05)
    governor = Governor(4, 1, 0, RULES)
    waiting, seen = 0.0, set()
    for n in range(round(60 / EVERY_S)):
        waiting = max(0.0, waiting + (53 * asked[governor.at] - 25.0) * EVERY_S)
        seen.add(governor.look(n * EVERY_S, waiting / 25.0 / 0.32))
    assert seen == {0, 1}


def test_a_burst_is_held_and_left_again() -> None:
    """A fluid queue at five times the load of busy: the wait stays in its time, and idle returns after."""
    asked = (0.8, 0.4, 0.1)  # share of texts that each gear sends to a stage of 200 texts a second
    governor = Governor(3, 1, 0, RULES)
    waiting, worst, moves = 0.0, 0.0, 0
    for n in range(round(60 / EVERY_S)):
        rate = 1800.0 if 10 <= n * EVERY_S < 30 else 150.0
        waiting = max(0.0, waiting + (rate * asked[governor.at] - 200.0) * EVERY_S)
        waiting = min(waiting, 36.0)  # beyond what can be answered within 180 ms nothing is let in
        before = governor.at
        governor.look(n * EVERY_S, waiting / 200.0 / 0.18)
        moves += governor.at != before
        if n * EVERY_S >= 10.2:
            worst = max(worst, waiting / 200.0)
    assert worst < 0.2
    assert moves < 20
    assert governor.at == 0
