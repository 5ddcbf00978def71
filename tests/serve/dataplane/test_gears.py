"""Gears of the data plane: load alone picks one, and a request keeps the one that it came in."""

from __future__ import annotations

import asyncio
import time

import pytest

from contract.policy import Gear, Limits, Policy, Stage
from router.decide.cascade import compile_policy
from serve.dataplane.plane import DataPlane
from serve.settings.gears import GearSettings
from serve.settings.limits import RequestLimits
from serve.stages.loading import compile_gears
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.types.stage import Snapshot
from tests.serve.dataplane.test_dataplane import Scripted
from tests.serve.parts import FakeFolder, Kept

pytestmark = pytest.mark.anyio
UNSURE = "0@0.6 1@0.8 2@0.99"


class Waiting(Scripted):
    """A scripted stage that says how long a newcomer would wait."""

    share = 0.0

    def wait_share(self, within_s: float) -> float:
        """As told."""
        assert within_s == pytest.approx(0.18)
        return self.share


def ladder(**limits: float) -> Policy:
    """Idle: nearly all goes to large; busy: what small is less sure of than 0.7; overload: to other alone."""
    idle = (Stage(variant="fake-small", threshold=0.99), Stage(variant="fake-large"))
    busy = (Stage(variant="fake-small", threshold=0.7), Stage(variant="fake-large"))
    overload = (Stage(variant="fake-small", threshold=0.7), Stage(variant="fake-other"))
    last = (Stage(variant="fake-small", threshold=0.5), Stage(variant="fake-large"))
    return Policy(
        status="uncertified",
        reference="fake-large",
        stages=busy,
        limits=Limits(**({"objective_ms": 200.0} | limits)),
        gears=(
            Gear(name="idle", stages=idle, epsilon=0.01),
            Gear(name="busy", stages=busy, epsilon=0.01),
            Gear(name="overload-1", stages=overload, epsilon=0.04),
            Gear(name="overload-2", stages=last, epsilon=0.04),
        ),
    ).sealed()


class World:
    """A plane with gears, whose clock stands still unless it is moved."""

    def __init__(self, fakes: FakeFolder, policy: Policy, gear: str | None = None, **rules: bool) -> None:
        self.fakes = fakes
        self.now = time.monotonic()
        self.stages = {name: Waiting(name) for name in fakes.family.names}
        self.snapshot = self.with_policy(policy, gear)
        self.plane = DataPlane(
            lambda: self.snapshot,
            RequestLimits(),
            Kept(),
            gears=GearSettings(**rules),
            clock=lambda: self.now,
        )

    def with_policy(self, policy: Policy, gear: str | None = None) -> Snapshot:
        """A snapshot of the same stages."""
        labels = self.fakes.family.labels
        compiled, gears = compile_policy(policy, labels), compile_gears(policy, labels)
        return Snapshot(1, policy, compiled, self.fakes.family, self.stages, gears=gears, gear=gear)

    async def ask(self, text: str = UNSURE) -> ClassifyResult:
        """Classify."""
        return await self.plane.classify(ClassifyRequest("cascade", [text], None, self.now))

    def look(self, seconds: float) -> str:
        """Let time pass, with a look every 50 ms; return the gear then."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            self.plane.shift()
        return self.plane.gear


async def test_load_alone_moves_a_plane_along_its_gears(fake_folder: FakeFolder) -> None:
    """It begins busy; a long wait at the large stage takes the last gear, calm leads down to idle."""
    world = World(fake_folder, ladder())
    first = await world.ask()
    assert (first.gear, first.variant) == ("busy", ["fake-large"])
    world.stages["fake-large"].share = 0.9
    assert world.look(0.1) == "overload-2"
    under_load = await world.ask()
    assert (under_load.gear, under_load.variant, under_load.degraded) == (
        "overload-2",
        ["fake-small"],
        [False],
    )
    world.stages["fake-large"].share = 0.0
    assert world.look(20.0) == "idle"
    assert (await world.ask("0@0.9 1@0.8 2@0.99")).variant == ["fake-large"]


async def test_a_request_keeps_the_gear_that_it_came_in(fake_folder: FakeFolder) -> None:
    """The gear changes while a text waits for its second stage: the old gear's last stage answers it."""
    world = World(fake_folder, ladder())
    world.stages["fake-small"].gate.clear()
    asked = asyncio.create_task(world.ask())
    await asyncio.sleep(0)
    world.stages["fake-large"].share = 0.9
    assert world.look(0.1) == "overload-2"
    world.stages["fake-small"].gate.set()
    result = await asked
    assert (result.gear, result.variant) == ("busy", ["fake-large"])


async def test_only_stages_that_a_dearer_gear_asks_more_of_count(fake_folder: FakeFolder) -> None:
    """A wait at the stage that every gear asks first of every text is none that a gear could relieve."""
    world = World(fake_folder, ladder())
    await world.ask()
    world.stages["fake-small"].share = 0.95
    world.stages["fake-large"].share = 0.3
    assert world.look(5.0) == "busy"


async def test_a_gear_fixed_by_hand_stays_whatever_the_load(fake_folder: FakeFolder) -> None:
    """The snapshot names it; a later one without that name leaves it to load again, from where it is."""
    world = World(fake_folder, ladder(), gear="overload-1")
    assert (await world.ask()).variant == ["fake-other"]
    world.stages["fake-other"].share = 0.9
    assert world.look(5.0) == "overload-1"
    world.snapshot = world.with_policy(ladder())
    assert (await world.ask()).gear == "overload-1"
    assert world.look(0.1) == "overload-2"


async def test_settings_can_leave_out_idle_or_all_gears(fake_folder: FakeFolder) -> None:
    """`idle: false` goes down to busy only; `enabled: false` is the policy's own stages always."""
    world = World(fake_folder, ladder(), idle=False)
    await world.ask()
    assert world.look(30.0) == "busy"
    world = World(fake_folder, ladder(), enabled=False)
    await world.ask()
    world.stages["fake-large"].share = 0.9
    assert world.look(1.0) == "busy"


async def test_a_policy_without_gears_has_none(fake_folder: FakeFolder) -> None:
    """No gear is named in results, and looking changes nothing."""
    policy = ladder().model_copy(update={"gears": ()}).sealed()
    world = World(fake_folder, policy)
    assert (await world.ask()).gear == ""
    assert world.look(1.0) == ""


async def test_every_gear_must_be_ready_and_the_escalation_budget_is_one(fake_folder: FakeFolder) -> None:
    """A stage of another gear that does not answer makes it unready; gears share what may escalate."""
    world = World(fake_folder, ladder(max_escalation_rate=0.0))
    assert (await world.ask()).degraded == [True]
    world.stages["fake-large"].share = 0.6
    assert world.look(0.55) == "overload-1"
    assert (await world.ask()).degraded == [True]
    assert await world.plane.ready()
    world.stages["fake-other"].is_ready = False
    assert not await world.plane.ready()
