"""Parts that are killed or frozen under load: nothing is answered twice or wrongly, and all is whole soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.chaos import parts
from tests.chaos.client import PatientClients, ask, is_whole
from tests.chaos.house import House
from tests.chaos.load import RATE, Harm, Load, bodies
from tests.chaos.record import WHOLE_WITHIN_S, Case
from tests.chaos.scene import Scene

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
LONG = pytest.mark.chaos


@dataclass(frozen=True)
class Fault:
    """Harm to one part of a gateway.

    Attributes:
        part: one of `parts.PARTS`.
        do: does it, in the folder of a run.
        is_replaced: whether the process is expected to go, and another to come.
        within_s: in which the gateway is to be whole again.
    """

    part: str
    do: Callable[[Path, str], None]
    is_replaced: bool = True
    within_s: float = WHOLE_WITHIN_S


@dataclass
class Harming:
    """One fault in one gateway, and how long it took until nothing of it was left."""

    house: House
    fault: Fault
    whole_s: float | None = None
    before: int = field(init=False)

    def __call__(self) -> None:
        """Do it, and wait until the gateway is whole again."""
        found = parts.find(self.house.folder, self.fault.part)
        self.before = len(found)
        harmed = psutil.Process(found[0].pid)
        began = time.monotonic()
        self.fault.do(self.house.folder, self.fault.part)
        waited = parts.wait_until(lambda: self._is_whole(harmed), 4 * WHOLE_WITHIN_S)
        self.whole_s = None if waited is None else time.monotonic() - began

    def _is_whole(self, harmed: psutil.Process) -> bool:
        state = parts.state_of(harmed)
        if state is not None and (self.fault.is_replaced or state == psutil.STATUS_STOPPED):
            return False
        there = len(parts.find(self.house.folder, self.fault.part))
        return there >= self.before and is_whole(self.house.url)


def suffer(
    scene: Scene, name: str, fault: Fault, *, seconds: float, remark: str = "", may_lose: int = 0
) -> Case:
    """Do harm to a part in the middle of a load, and hold what comes of it to what is promised."""
    harming = Harming(scene.house, fault)
    with PatientClients(scene.house.url) as clients:
        tally = scene.offer(Load(seconds), Harm(harming, at_s=1.5))
    case = Case(name, tally, clients, harming.whole_s, remark, may_lose)
    scene.record.add(case, within_s=fault.within_s)
    return case


def suffer_from(scene: Scene, name: str, *, part: str, fault: str) -> Case:
    """Have a fake's call do wrong in the middle of a load; as `suffer`."""

    def do(folder: Path, part: str) -> None:
        del folder, part
        body = bodies("fake-large", 1, faulty=(fault, 1))[0]
        threading.Thread(target=ask, args=(scene.house.url, body), kwargs={"model": "fake-large"}).start()

    return suffer(scene, name, Fault(part, do), seconds=16)


def test_a_killed_haproxy_costs_less_than_a_second(scene: Scene) -> None:
    """Only what was inside it breaks: no connection is refused, and the next request is answered."""
    killed = Fault("HAProxy", parts.kill)
    case = suffer(scene, "HAProxy killed", killed, seconds=14 if scene.is_whole else 3, may_lose=10)
    assert case.tally.disturbed_s < 1.0
    assert not case.tally.refused


@LONG
def test_a_killed_gateway_replica_costs_what_it_had_in_hand(scene: Scene) -> None:
    """The other replica answers meanwhile."""
    killed = Fault("gateway replica", parts.kill)
    case = suffer(scene, "gateway replica killed", killed, seconds=14, may_lose=10)
    assert case.tally.answered >= case.tally.sent - 10


ONE_RAYLET = (
    "one machine has one raylet, and Ray ends with it: `sluice serve` starts Ray and the gateway anew on the "
    "same port and the same live state. The time is that of a start on this machine, and may be 40 s; every "
    "request of the load may be refused meanwhile, by a 503 in our form."
)
START_S = 40.0
"""A start of Ray and all that it runs, on a machine that makes the load as well."""


@LONG
@pytest.mark.parametrize("part", ["stage replica", "Control", "Serve controller"])
def test_a_killed_part_comes_back(scene: Scene, part: str) -> None:
    """The cascade answers all the while, without the stage with the cheap answer."""
    case = suffer(scene, f"{part} killed", Fault(part, parts.kill), seconds=14)
    assert case.tally.answered == case.tally.sent


@LONG
@pytest.mark.parametrize("part", ["gateway replica", "stage replica", "Control", "HAProxy"])
def test_a_frozen_part_is_replaced(scene: Scene, part: str) -> None:
    """A process that lives and answers nothing is found by that, ended, and replaced."""
    case = suffer(scene, f"{part} frozen", Fault(part, parts.freeze), seconds=18, may_lose=10)
    assert case.tally.answered >= case.tally.sent - 10


@LONG
@pytest.mark.parametrize("part", ["Serve controller", "raylet"])
def test_a_part_that_is_frozen_for_a_while_is_not_missed(scene: Scene, part: str) -> None:
    """Requests need neither; nobody replaces them for being slow, and they go on where they were."""

    def freeze(folder: Path, part: str) -> None:
        parts.freeze_for(folder, part, 6.0)

    frozen = Fault(part, freeze, is_replaced=False)
    case = suffer(scene, f"{part} frozen for 6 s", frozen, seconds=14)
    assert case.tally.answered == case.tally.sent


@LONG
def test_without_a_raylet_all_starts_again(scene: Scene) -> None:
    """Ray ends with its raylet; clients are told 503 in our form until the gateway has started again."""
    folder = scene.house.folder
    before = parts.find(folder, "raylet")[0].pid
    killed = Fault("raylet", parts.kill, within_s=START_S)
    case = suffer(scene, "raylet killed", killed, seconds=20, remark=ONE_RAYLET, may_lose=int(20 * RATE))
    assert case.tally.resets <= 10
    assert parts.find(folder, "raylet")[0].pid != before
    assert folder.is_dir()
