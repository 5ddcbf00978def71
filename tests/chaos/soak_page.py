"""What a soak came to: the growth of each process, the verdict, and the page."""

from __future__ import annotations

import platform
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from scipy import stats

from runtime.machine import describe_machine
from tests.chaos.load import Tally

PIECE_S = 30.0
SETTLED_S = 60.0
"""A process counts from so long after its start, when everything that loads late has."""
LEAK_MB_PER_MIN = 0.5
"""A process whose memory surely grows faster leaks."""
JUDGED_SHARE = 0.5
"""Of the run: a process that lived less is shown and not judged, since its caches and pools still fill."""
MAY_LOSE = 10
MAY_LOSE_S = 0.1
"""In a piece with a kill so many requests may be lost, or what came in so long, whichever is more."""
KILLS = ("gateway replica", "HAProxy", "stage replica", "Control")

Memory = dict[str, list[tuple[float, float]]]
"""Seconds and resident MB, by process."""


@dataclass
class Soaked:
    """What was asked and done.

    Attributes:
        command: that does it again. rate: of the load.
        found: capacity per second within `slo_ms`, where it was looked for.
        piece_s: of the load; a push in each, a kill in every other one.
    """

    command: str
    found: float | None
    rate: float
    slo_ms: float
    seconds: float
    piece_s: float
    tallies: list[Tally]
    memory: Memory
    pushes: int = 0
    refused_pushes: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)


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

    def judged(self, run_s: float) -> bool:
        """Whether it lived long enough of a run to be judged."""
        return 60 * self.minutes + SETTLED_S >= JUDGED_SHARE * run_s

    def leaks(self, run_s: float) -> bool:
        """Whether it is judged, and surely grows faster than is let pass."""
        return self.judged(run_s) and self.low > LEAK_MB_PER_MIN


def growths(memory: Memory, *, least_s: float) -> list[Growth]:
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


def verdict(soaked: Soaked, grown: list[Growth]) -> list[str]:
    """Return what speaks against the gateway; empty when it passed."""
    against = [
        f"{growth.name} grows by {growth.slope:.2f} MB a minute"
        for growth in grown
        if growth.leaks(soaked.seconds)
    ]
    against += [f"malformed: {wrong}" for tally in soaked.tallies for wrong in tally.malformed[:3]]
    for number, tally in enumerate(soaked.tallies):
        may_lose = max(MAY_LOSE, round(MAY_LOSE_S * soaked.rate)) if number % 2 else 0
        if tally.lost > may_lose:
            kill = f"with a {killed_in(number)} killed" if number % 2 else "without a kill"
            against.append(f"piece {number + 1}, {kill}, lost {tally.lost}, not {may_lose} at most")
        if tally.late:
            against.append(f"piece {number + 1} has {tally.late} without an answer in time")
    against += [f"a push was refused: {said}" for said in soaked.refused_pushes]
    return against


def killed_in(number: int) -> str:
    """Return what is killed in a piece of the load; empty for nothing."""
    return KILLS[number // 2 % len(KILLS)] if number % 2 else ""


def page(soaked: Soaked, grown: list[Growth]) -> str:
    """Return the page."""
    machine = describe_machine()
    against = verdict(soaked, grown)
    total = Tally()
    for tally in soaked.tallies:
        total.sent += tally.sent
        total.answered += tally.answered
        total.degraded += tally.degraded
        total.resets += tally.resets
        total.late += tally.late
        total.refused.update(tally.refused)
        total.slowest_s = max(total.slowest_s, tally.slowest_s)
    refused = ", ".join(f"{n:,} x {status}" for status, n in sorted(total.refused.items())) or "0"
    kills = ", ".join(f"{part} {n} times" for part, n in soaked.kills.items()) or "none"
    said = "passed" if not against else "failed: " + "; ".join(against)
    totals = {
        "sent": f"{total.sent:,}",
        "answered": f"{total.answered:,}",
        "degraded": f"{total.degraded:,}",
        "refused": refused,
        "reset": f"{total.resets:,}",
        "late": f"{total.late:,}",
        "slowest": f"{total.slowest_s:.2f} s",
        "pushes": soaked.pushes,
        "refused pushes": len(soaked.refused_pushes),
        "killed": kills,
    }
    pieces = [
        {
            "piece": n + 1,
            "killed": killed_in(n),
            "lost": f"{t.lost:,}",
            "of them reset": f"{t.resets:,}",
            "disturbed": f"{t.disturbed_s:.2f} s",
        }
        for n, t in enumerate(soaked.tallies)
    ]
    processes = [
        {
            "process": g.name,
            "minutes": f"{g.minutes:.1f}",
            "first MB": f"{g.first_mb:.0f}",
            "last MB": f"{g.last_mb:.0f}",
            "MB a minute": f"{g.slope:+.2f}",
            "interval": f"{g.low:+.2f} to {g.high:+.2f}",
            "judged": "yes" if g.judged(soaked.seconds) else "no",
        }
        for g in grown
    ]
    of_capacity = (
        ""
        if soaked.found is None
        else f", {soaked.rate / soaked.found:.0%} of the {soaked.found:.0f} that it holds within "
        f"{soaked.slo_ms:g} ms on the machine that also makes the load"
    )
    day = datetime.now(UTC).date().isoformat()
    parts = [
        "# Soak",
        _text(
            f"`{soaked.command}`, {day}, {machine.cpu}, {machine.cores} cores, "
            f"Python {platform.python_version()}: a gateway on fakes, {soaked.seconds / 60:.1f} minutes at "
            f"{soaked.rate:.0f} requests per second{of_capacity}."
        ),
        _text(f"**Verdict: {said}.**"),
        _table([totals]),
        _text(
            f"A push every {soaked.piece_s:g} s, a kill every {2 * soaked.piece_s:g} s. "
            "What was not answered, by piece of that load:"
        ),
        _table(pieces),
        _text(
            f"Memory of every process, from {SETTLED_S:g} s after its start: the median of pairwise slopes "
            f"(Theil-Sen) with its 95% interval. One that lived for {JUDGED_SHARE:.0%} of the run or more is "
            f"judged, and leaks where its interval begins above {LEAK_MB_PER_MIN:g} MB a minute. "
            "Younger ones, which took the place of killed ones, are shown alone: their caches still fill."
        ),
        _table(processes),
    ]
    return "\n\n".join(parts) + "\n"


def _text(words: str) -> str:
    return textwrap.fill(words, 110, break_long_words=False, break_on_hyphens=False)


def _table(rows: list[dict[str, object]] | list[dict[str, str]]) -> str:
    if not rows:
        return "(none)"
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
