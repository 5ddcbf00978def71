"""A soak: minutes of load at a share of what the gateway can do, with pushes and kills, and a verdict.

`python -m tests.chaos.soak` finds the capacity first, with the project's own search.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy import stats

from contract.errors import SluiceError
from contract.policy import Policy
from loadtest.generator import Generator
from loadtest.runner import LoadPlan
from loadtest.search import Search
from loadtest.sweep import find_capacity
from runtime.machine import describe_machine
from serve.control.admin_client import push_policy, show_policy
from tables.labelled import Labelled
from tests.chaos import parts
from tests.chaos.house import House, serving
from tests.chaos.load import Tally, offer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "soak.md"
SHARE = 0.7
SLO_MS = 200.0
PIECE_S = 30.0
LOOK_EVERY_S = 2.0
SETTLED_S = 60.0
"""A process counts from so long after its start, when everything that loads late has."""
LEAK_MB_PER_MIN = 0.5
"""A process whose memory surely grows faster leaks."""
KILLS = ("gateway replica", "HAProxy", "stage replica", "Control")


@dataclass
class Trace:
    """The memory of every process over time, and what was done to the gateway."""

    house: House
    began: float = field(default_factory=time.monotonic)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    pushes: int = 0
    refused_pushes: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        """Note the memory of every process now."""
        now = time.monotonic() - self.began
        for name, mb in parts.memory_mb(self.house.folder).items():
            self.memory[name].append((now, mb))

    def push(self) -> None:
        """Push a policy with another threshold."""
        try:
            policy = Policy.model_validate(show_policy(self.house.admin_url)["policy"])
            first, *rest = policy.stages
            threshold = 0.7 + 0.01 * (self.pushes % 20)
            stages = (first.model_copy(update={"threshold": threshold}), *rest)
            push_policy(policy.model_copy(update={"stages": stages}).sealed(), self.house.admin_url)
        except SluiceError as problem:
            self.refused_pushes.append(str(problem)[:120])
        self.pushes += 1

    def kill(self, part: str) -> None:
        """Kill one process that is such a part."""
        parts.kill(self.house.folder, part)
        self.kills[part] += 1


@dataclass(frozen=True)
class Growth:
    """How the memory of one process went: MB per minute with a 95% interval, and its first and last MB."""

    name: str
    minutes: float
    first_mb: float
    last_mb: float
    slope: float
    low: float
    high: float

    @property
    def leaks(self) -> bool:
        """Whether it surely grows faster than is let pass."""
        return self.low > LEAK_MB_PER_MIN


def growths(memory: dict[str, list[tuple[float, float]]], *, least_s: float) -> list[Growth]:
    """Return the growth of every process that lived long enough, by Theil-Sen's slope."""
    found = []
    for name, seen in memory.items():
        at, mb = np.array(seen).T
        kept = at >= at[0] + SETTLED_S
        if kept.sum() < 10 or at[kept][-1] - at[kept][0] < least_s:
            continue
        at, mb = at[kept] / 60.0, mb[kept]
        slope, _, low, high = stats.theilslopes(mb, at, 0.95)
        found.append(
            Growth(
                name,
                float(at[-1] - at[0]),
                float(mb[0]),
                float(mb[-1]),
                float(slope),
                float(low),
                float(high),
            )
        )
    return sorted(found, key=lambda growth: -growth.slope)


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
    piece_s = min(PIECE_S, seconds / 2)
    try:
        while time.monotonic() - trace.began < seconds:
            number = len(tallies)
            tallies.append(
                offer(
                    generator,
                    house.url,
                    rate=rate,
                    seconds=piece_s,
                    fault=_harm(trace, number),
                    fault_at_s=piece_s / 3,
                )
            )
    finally:
        over.set()
        watching.join()
    return trace, tallies


def _harm(trace: Trace, number: int) -> Callable[[], None]:
    def harm() -> None:
        trace.push()
        if number % 2:
            trace.kill(KILLS[number // 2 % len(KILLS)])

    return harm


def verdict(tallies: list[Tally], grown: list[Growth], trace: Trace) -> list[str]:
    """Return what speaks against the gateway; empty when it passed.

    A kill may cost what was inside the killed process, and what Ray needs to notice a stage.
    """
    against = [f"{growth.name} grows by {growth.slope:.2f} MB a minute" for growth in grown if growth.leaks]
    against += [f"malformed: {wrong}" for tally in tallies for wrong in tally.malformed[:3]]
    for number, tally in enumerate(tallies):
        quiet = number % 2 == 0
        lost = tally.sent - tally.answered
        if quiet and lost:
            against.append(f"piece {number + 1}, without a kill, lost {lost}")
        if tally.accounted != tally.sent:
            against.append(f"piece {number + 1} does not account for {tally.sent - tally.accounted}")
    against += [f"a push was refused: {said}" for said in trace.refused_pushes]
    return against


_TOTALS = (
    "sent", "answered", "degraded", "refused", "reset", "late", "slowest", "pushes", "refused pushes", "killed",
)  # fmt: skip


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def page(
    trace: Trace, tallies: list[Tally], grown: list[Growth], found: float, rate: float, command: str
) -> str:
    """Return the page."""
    machine = describe_machine()
    against = verdict(tallies, grown, trace)
    seconds = time.monotonic() - trace.began
    total = Tally()
    for tally in tallies:
        total.sent += tally.sent
        total.answered += tally.answered
        total.degraded += tally.degraded
        total.resets += tally.resets
        total.late += tally.late
        total.refused.update(tally.refused)
        total.slowest_s = max(total.slowest_s, tally.slowest_s)
    refused = ", ".join(f"{n:,} x {status}" for status, n in sorted(total.refused.items())) or "0"
    kills = ", ".join(f"{part} {n} times" for part, n in trace.kills.items()) or "none"
    lines = [
        "# Soak",
        "",
        f"`{command}`, {datetime.now(UTC).date().isoformat()}, {machine.cpu}, {machine.cores} cores,",
        f"Python {platform.python_version()}: a gateway on fakes, {seconds / 60:.1f} minutes at {rate:.0f} requests",
        f"per second, {SHARE:.0%} of the {found:.0f} that it holds within {SLO_MS:g} ms on the machine that also",
        "makes the load.",
        "",
        f"**Verdict: {'passed' if not against else 'failed'}.**" + "".join(f" {line}." for line in against),
        "",
        _row(*_TOTALS),
        _row(*("---" for _ in _TOTALS)),
        f"| {total.sent:,} | {total.answered:,} | {total.degraded:,} | {refused} | {total.resets:,} | "
        f"{total.late:,} | {total.slowest_s:.2f} s | {trace.pushes} | {len(trace.refused_pushes)} | {kills} |",
        "",
        f"A push every {PIECE_S:g} s, a kill every {2 * PIECE_S:g} s. What was not answered, by piece:",
        "",
        "| piece | killed | lost | of them reset | disturbed |",
        "| --- | --- | --- | --- | --- |",
        *(
            _row(
                n + 1,
                KILLS[n // 2 % len(KILLS)] if n % 2 else "",
                f"{t.sent - t.answered:,}",
                f"{t.resets:,}",
                f"{t.disturbed_s:.2f} s",
            )
            for n, t in enumerate(tallies)
        ),
        "",
        f"Memory of every process that lived through most of it, from {SETTLED_S:g} s after its start: the median",
        "of pairwise slopes (Theil-Sen) with its 95% interval. One leaks whose interval begins above",
        f"{LEAK_MB_PER_MIN:g} MB a minute.",
        "",
        "| process | minutes | first MB | last MB | MB a minute | interval |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {g.name} | {g.minutes:.1f} | {g.first_mb:.0f} | {g.last_mb:.0f} | {g.slope:+.2f} | "
            f"{g.low:+.2f} to {g.high:+.2f} |"
            for g in grown
        ),
    ]
    return "\n".join(lines) + "\n"


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
            found = given.rate / SHARE if given.rate else capacity(house, generator)
            rate = SHARE * found
            sys.stderr.write(f"capacity {found:.0f} per second, soaking at {rate:.0f}\n")
            trace, tallies = soak(house, generator, rate, 60 * given.minutes)
        grown = growths(trace.memory, least_s=min(120.0, 20 * given.minutes))
        command = (
            "make soak" if given.minutes == 10 else f"python -m tests.chaos.soak --minutes {given.minutes:g}"
        )
        given.out.write_text(page(trace, tallies, grown, found, rate, command))
        against = verdict(tallies, grown, trace)
    sys.stderr.write("passed\n" if not against else "failed: " + "; ".join(against) + "\n")
    sys.exit(3 if against else 0)


if __name__ == "__main__":
    main()
