"""Parts that are killed or frozen under load: nothing is answered twice or wrongly, and all is whole soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from loadtest.generator import Generator
from tests.chaos import parts
from tests.chaos.client import PatientClients, ask, is_whole
from tests.chaos.conftest import RATE
from tests.chaos.house import House
from tests.chaos.load import bodies, offer
from tests.chaos.record import WHOLE_WITHIN_S, Case, Record

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
LONG = pytest.mark.chaos


@dataclass
class Fault:
    """Harm to one part, and how long it took until nothing of it was left."""

    house: House
    part: str
    do: Callable[[Path, str], None]
    replaced: bool = True
    whole_s: float | None = None
    before: int = field(init=False)

    def __call__(self) -> None:
        """Do it, and wait until the gateway is whole again."""
        self.before = len(parts.find(self.house.folder, self.part))
        harmed = parts.find(self.house.folder, self.part)[0]
        began = time.monotonic()
        self.do(self.house.folder, self.part)
        waited = parts.wait_until(lambda: self._is_whole(harmed), 4 * WHOLE_WITHIN_S)
        self.whole_s = None if waited is None else time.monotonic() - began

    def _is_whole(self, harmed: psutil.Process) -> bool:
        gone = not harmed.is_running() or harmed.status() == psutil.STATUS_ZOMBIE
        if not gone and (self.replaced or harmed.status() == psutil.STATUS_STOPPED):
            return False
        return len(parts.find(self.house.folder, self.part)) >= self.before and is_whole(self.house.url)


def suffer(
    house: House,
    generator: Generator,
    record: Record,
    part: str,
    name: str,
    do: Callable[[Path, str], None],
    *,
    seconds: float,
    within_s: float = WHOLE_WITHIN_S,
    replaced: bool = True,
    remark: str = "",
    may_lose: int = 0,
) -> Case:
    """Do harm to a part in the middle of a load, and hold what comes of it to what is promised."""
    fault = Fault(house, part, do, replaced)
    with PatientClients(house.url) as clients:
        tally = offer(generator, house.url, rate=RATE, seconds=seconds, fault=fault, fault_at_s=1.5)
    case = Case(name, tally, clients, fault.whole_s, remark, may_lose)
    record.add(case, within_s=within_s)
    return case


def suffer_from(house: House, generator: Generator, record: Record, part: str, name: str, fault: str) -> Case:
    """Have a fake's call do wrong in the middle of a load; as `suffer`."""

    def do(folder: Path, part: str) -> None:
        del folder, part
        body = bodies("fake-large", 1, faulty=(fault, 1))[0]
        threading.Thread(target=ask, args=(house.url, body), kwargs={"model": "fake-large"}).start()

    return suffer(house, generator, record, part, name, do, seconds=16)


def test_a_killed_haproxy_costs_less_than_a_second(
    house: House, generator: Generator, record: Record, whole: bool
) -> None:
    """Only what was inside it breaks: no connection is refused, and the next request is answered."""
    case = suffer(
        house,
        generator,
        record,
        "HAProxy",
        "HAProxy killed",
        parts.kill,
        seconds=14 if whole else 3,
        may_lose=10,
    )
    assert case.tally.disturbed_s < 1.0
    assert not case.tally.refused


@LONG
def test_a_killed_gateway_replica_costs_what_it_had_in_hand(
    house: House, generator: Generator, record: Record
) -> None:
    """The other replica answers meanwhile."""
    case = suffer(
        house,
        generator,
        record,
        "gateway replica",
        "gateway replica killed",
        parts.kill,
        seconds=14,
        may_lose=10,
    )
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
def test_a_killed_part_comes_back(house: House, generator: Generator, record: Record, part: str) -> None:
    """The cascade answers all the while, without the stage with the cheap answer."""
    case = suffer(house, generator, record, part, f"{part} killed", parts.kill, seconds=14)
    assert case.tally.answered == case.tally.sent


@LONG
@pytest.mark.parametrize("part", ["gateway replica", "stage replica", "Control", "HAProxy"])
def test_a_frozen_part_is_replaced(house: House, generator: Generator, record: Record, part: str) -> None:
    """A process that lives and answers nothing is found by that, ended, and replaced."""
    case = suffer(house, generator, record, part, f"{part} frozen", parts.freeze, seconds=18, may_lose=10)
    assert case.tally.answered >= case.tally.sent - 10


@LONG
@pytest.mark.parametrize("part", ["Serve controller", "raylet"])
def test_a_part_that_is_frozen_for_a_while_is_not_missed(
    house: House, generator: Generator, record: Record, part: str
) -> None:
    """Requests need neither; nobody replaces them for being slow, and they go on where they were."""

    def freeze(folder: Path, part: str) -> None:
        parts.freeze_for(folder, part, 6.0)

    name = f"{part} frozen for 6 s"
    case = suffer(house, generator, record, part, name, freeze, seconds=14, replaced=False)
    assert case.tally.answered == case.tally.sent


@LONG
def test_without_a_raylet_all_starts_again(house: House, generator: Generator, record: Record) -> None:
    """Ray ends with its raylet; clients are told 503 in our form until the gateway has started again."""
    before = psutil.Process(parts.find(house.folder, "raylet")[0].pid).pid
    case = suffer(
        house,
        generator,
        record,
        "raylet",
        "raylet killed",
        parts.kill,
        seconds=20,
        within_s=START_S,
        remark=ONE_RAYLET,
        may_lose=int(20 * RATE),
    )
    assert case.tally.resets <= 10
    assert parts.find(house.folder, "raylet")[0].pid != before
    assert house.folder.is_dir()
