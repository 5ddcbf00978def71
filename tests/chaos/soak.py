"""A soak: minutes of load at a share of what the gateway can do, with pushes and kills, and a verdict.

`python -m tests.chaos.soak` finds the capacity first, with the project's own search.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from contract.errors import SluiceError
from contract.policy import Policy
from loadtest.generator import Generator
from loadtest.runner import LoadPlan
from loadtest.search import Search
from loadtest.sweep import find_capacity
from serve.control.admin_client import push_policy, show_policy
from tables.labelled import Labelled
from tests.chaos import parts
from tests.chaos.house import House, serving
from tests.chaos.load import Harm, Load, Tally, offer
from tests.chaos.soak_page import PIECE_S, Memory, Soaked, growths, killed_in, page, verdict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "soak.md"
SHARE = 0.7
SLO_MS = 200.0
LOOK_EVERY_S = 2.0


@dataclass
class Trace:
    """The memory of every process over time, and what was done to the gateway."""

    house: House
    began: float = field(default_factory=time.monotonic)
    memory: Memory = field(default_factory=lambda: defaultdict(list))
    pushes: int = 0
    refused_pushes: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        """Note the memory of every process now."""
        now = time.monotonic() - self.began
        for name, mb in parts.memory_mb(self.house.folder).items():
            self.memory[name].append((now, mb))

    def push(self) -> None:
        """Push a policy with another threshold, so little higher that the load it makes stays the same."""
        try:
            policy = Policy.model_validate(show_policy(self.house.admin_url)["policy"])
            first, *rest = policy.stages
            threshold = 0.7 + 0.001 * (self.pushes % 20)
            stages = (first.model_copy(update={"threshold": threshold}), *rest)
            push_policy(policy.model_copy(update={"stages": stages}).sealed(), self.house.admin_url)
        except SluiceError as problem:
            self.refused_pushes.append(str(problem)[:120])
        self.pushes += 1

    def kill(self, part: str) -> None:
        """Kill one process that is such a part, where there is one."""
        try:
            parts.kill(self.house.folder, part)
        except (IndexError, ProcessLookupError):  # another has been ended just now
            return
        self.kills[part] += 1


def capacity(house: House, generator: Generator) -> float:
    """Return the most requests per second that the gateway answers within the objective."""
    texts = tuple(f"sport: story {n}" for n in range(2000))
    labels, none, rows = ("sport",) * len(texts), ((),) * len(texts), tuple(range(len(texts)))
    data = Labelled(texts, labels, none, rows)
    plan = LoadPlan(
        url=house.url, data=data, rate_per_s=50, duration_s=3, warmup_s=0.5, slo_ms=SLO_MS, meter=False
    )
    search = Search(resolution=0.1, max_steps=8, min_requests=150, confirm=1, confirm_s=4)
    with tempfile.TemporaryDirectory(prefix="sluice-soak-") as out:
        found = find_capacity(plan, generator=generator, search=search, out=Path(out))
    assert found.rate_per_s, "no rate was held"
    return float(found.rate_per_s)


def soak(house: House, generator: Generator, rate: float, seconds: float) -> tuple[Trace, list[Tally]]:
    """Offer the load piece by piece; a push in every piece, a kill in every other one."""
    trace = Trace(house)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            trace.look()

    watching = threading.Thread(target=watch)
    watching.start()
    tallies: list[Tally] = []
    piece_s = _piece_s(seconds)
    try:
        while time.monotonic() - trace.began < seconds:
            number = len(tallies)
            tallies.append(
                offer(generator, house.url, Load(piece_s, rate), Harm(_harm(trace, number), at_s=piece_s / 3))
            )
    finally:
        over.set()
        watching.join()
    return trace, tallies


def _piece_s(seconds: float) -> float:
    return min(PIECE_S, seconds / 2)


def _harm(trace: Trace, number: int) -> Callable[[], None]:
    def harm() -> None:
        trace.push()
        if part := killed_in(number):
            trace.kill(part)

    return harm


def main() -> None:
    """Run it, write the page, and end with 0 when it passed, 3 when not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="requests per second; without it 70%% of what is found")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-soak-") as name, Generator() as generator:
        place = Path(name)
        with serving(place, place / "state", dict(os.environ)) as house:
            found = None if given.rate else capacity(house, generator)
            rate = given.rate if found is None else SHARE * found
            sys.stderr.write(f"capacity {found}, soaking at {rate:.0f} per second\n")
            trace, tallies = soak(house, generator, rate, 60 * given.minutes)
        command = (
            "make soak" if given.minutes == 10 else f"python -m tests.chaos.soak --minutes {given.minutes:g}"
        )
        soaked = Soaked(
            command, found, rate, SLO_MS, time.monotonic() - trace.began,
            _piece_s(60 * given.minutes), tallies, trace.memory,
            trace.pushes, trace.refused_pushes, trace.kills,
        )  # fmt: skip
    grown = growths(trace.memory, least_s=min(120.0, 20 * given.minutes))
    given.out.write_text(page(soaked, grown))
    against = verdict(soaked, grown)
    sys.stderr.write("passed\n" if not against else "failed: " + "; ".join(against) + "\n")
    sys.exit(3 if against else 0)


if __name__ == "__main__":
    main()
