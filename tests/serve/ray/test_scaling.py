"""How many replicas load asks for, and what replicas tell of their load; no Ray is started."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.ray.deployments import how_many
from serve.ray.scaling import ASKED, BUSY, WAITING, ByLoad
from serve.settings.scaling import Scaling
from serve.stages.load_meter import Asked, BusyShare, TimedBatches
from serve.types.recorder import BatchRecord, NoRecorder
from tests.serve.parts import Kept


def context(figures: dict[str, dict[str, float]] | None, target: int = 2) -> SimpleNamespace:
    """What Ray gives a policy, as far as ours reads it."""
    return SimpleNamespace(aggregated_metrics=figures, target_num_replicas=target)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@given(
    st.integers(0, 10_000),
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.floats(0.5, 100),
    st.floats(0.1, 1),
)
def test_the_number_wanted_keeps_both_targets_and_one_fewer_would_not(
    work: int, shares: list[float], queued: float, busy: float
) -> None:
    """Whatever the load: so many carry it within the targets, and it is the least number that does."""
    policy = ByLoad(queued, busy)
    n = policy.wanted(work, shares)
    assert work / n <= queued * (1 + 1e-9)
    assert sum(shares) / n <= busy * (1 + 1e-6) + 1e-8
    assert n == 1 or work / (n - 1) > queued or sum(shares) / (n - 1) > busy


def test_before_anybody_has_reported_nothing_changes() -> None:
    """A deployment that has just started keeps what it has."""
    assert ByLoad(8, 0.7)(context(None)) == (2, {})
    assert ByLoad(8, 0.7)(context({WAITING: {"a": 90.0}}, target=3)) == (3, {})


def test_what_gateways_ask_counts_once_and_what_replicas_hold_adds_up() -> None:
    """Every stage replica is told the same by all gateways; each gateway replica knows its own queue."""
    policy = ByLoad(10, 1.0)
    asked = {ASKED: {"a": 38.0, "b": 40.0}, BUSY: {"a": 0.1, "b": 0.1}}
    assert policy(context(asked))[0] == 4
    waiting = {WAITING: {"a": 38.0, "b": 40.0}, BUSY: {"a": 0.1, "b": 0.1}}
    assert policy(context(waiting))[0] == 8


def test_the_time_at_work_is_a_share_of_all_lanes_since_the_last_look() -> None:
    """Half of one lane of two is a quarter; a look without any time between is no division by zero."""
    clock, batches = Clock(), TimedBatches(NoRecorder())
    share = BusyShare(lambda: batches.seconds, lanes=2, clock=clock)
    assert share.look() == 0.0
    batches.batch(BatchRecord("v", 1, [0.0], 1.0, 1.0))
    clock.now = 2.0
    assert share.look() == 0.25
    clock.now = 4.0
    assert share.look() == 0.0


def test_one_long_batch_counts_as_work_before_it_ends() -> None:
    """Where texts were inside at both looks and none came out, the model ran all the while."""
    clock = Clock()
    share = BusyShare(lambda: 0.0, clock=clock)
    clock.now = 1.0
    assert share.look(inside=3) == 0.0
    clock.now = 2.0
    assert share.look(inside=3) == 1.0
    clock.now = 3.0
    assert share.look(inside=0) == 0.0


def test_what_a_gateway_says_counts_while_it_calls_without_what_is_answered() -> None:
    """Of each gateway and build the last word; what is left once no call is inside, for a moment only."""
    clock = Clock()
    asked = Asked(moment_s=0.2, clock=clock)
    asked.begins("one", "build", 5)
    asked.begins("one", "build", 9)
    asked.begins("two", "build", 3)
    clock.now = 60.0
    assert asked.total() == 12
    asked.ends("one", "build", 5)
    asked.ends("two", "build", 3)
    assert asked.total() == 4
    asked.ends("one", "build", 2)
    assert asked.total() == 2
    clock.now = 60.3
    assert asked.total() == 0


def test_timing_batches_passes_everything_on() -> None:
    """The recorder behind it is told what it would be told anyway."""
    kept = Kept()
    batches = TimedBatches(kept)
    batches.batch(BatchRecord("v", 2, [0.0], 0.5, 0.1))
    batches.refused("v", "overloaded", 2)
    assert (batches.seconds, len(kept.batches), kept.refusals) == (0.5, 1, [("v", "overloaded", 2)])


def test_a_range_becomes_rays_configuration_and_a_number_stays_one() -> None:
    """Ray checks the bounds, takes our policy by its name, and makes it with both targets."""
    assert how_many(3) == {"num_replicas": 3}
    config = how_many(Scaling(min=2, max=5, queued=4, busy=0.5, window_s=1.0, up_after_s=1.5))[
        "autoscaling_config"
    ]
    assert (config.min_replicas, config.max_replicas, config.upscale_delay_s) == (2, 5, 1.5)
    assert math.isclose(config.metrics_interval_s, 0.5)
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)
    assert policy.wanted(20, [1.0]) == 5


@pytest.mark.parametrize("busy", [0.0, 1.5])
def test_a_target_that_cannot_be_met_is_refused(busy: float) -> None:
    """Nothing works for no part or for more than all of its time."""
    with pytest.raises(ValueError, match="busy"):
        Scaling(max=2, busy=busy)
