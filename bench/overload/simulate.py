"""Queues of one stage of known speed under more traffic than it holds, simulated: which serves best.

python -m bench.overload.simulate

Discrete events, no clock: Poisson arrivals, a stage that takes `a + b` per text with some scatter, batches of
what waits. Every discipline sees the same arrivals.
"""

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

OBJECTIVE_S = 0.2
KEPT = 0.9
TEXT_S = 0.005
MAX_ITEMS = 16


@dataclass
class Outcome:
    """What one discipline did at one rate."""

    within: int = 0
    late: int = 0
    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)


class Discipline:
    """A queue of arrival times. `now` is the simulation's; `pace` the learned seconds of a text."""

    batch_share = 1.0

    def __init__(self) -> None:
        self.queue: deque[float] = deque()
        self.pace = TEXT_S
        self.free_at = 0.0

    def limit(self) -> int:
        """Texts of one batch."""
        return max(1, min(MAX_ITEMS, int(self.batch_share * OBJECTIVE_S / self.pace)))

    def ends_at(self, now: float, place: int) -> float:
        """When the text in that place (1 is the first) will be answered, in full batches."""
        batches = -(-place // self.limit())
        return max(now, self.free_at) + batches * min(self.limit(), max(len(self.queue), 1)) * self.pace

    def arrive(self, now: float) -> list[float]:
        """Take an arrival; return the arrival times of what is refused."""
        raise NotImplementedError

    def take(self, now: float) -> tuple[list[float], list[float]]:  # noqa: ARG002
        """Return the next batch, and what is refused instead."""
        batch = [self.queue.popleft() for _ in range(min(self.limit(), len(self.queue)))]
        return batch, []


class Fifo(Discipline):
    """First come, first served, up to five seconds: what the gateway did."""

    def arrive(self, now: float) -> list[float]:
        """Refuse beyond five seconds of work or 512 texts."""
        if len(self.queue) * self.pace > 5.0 or len(self.queue) >= 512:
            return [now]
        self.queue.append(now)
        return []


class Newest(Discipline):
    """Refuse the newcomer that could not be answered in time."""

    batch_share = 0.25
    share = 1.0

    def arrive(self, now: float) -> list[float]:
        """Refuse it at once."""
        self.queue.append(now)
        if self.ends_at(now, len(self.queue)) > now + KEPT * self.share * OBJECTIVE_S and len(self.queue) > 1:
            return [self.queue.pop()]
        return []

    def take(self, now: float) -> tuple[list[float], list[float]]:
        """Leave out what is late by now."""
        gone = []
        while len(self.queue) > 1 and now + self.pace > self.queue[0] + KEPT * OBJECTIVE_S:
            gone.append(self.queue.popleft())
        batch, _ = super().take(now)
        return batch, gone


class NewestAtHalf(Newest):
    """The same with half of the room: no standing queue of a whole objective."""

    share = 0.5


class Oldest(Newest):
    """Refuse the oldest when the newcomer could not be answered in time otherwise."""

    def arrive(self, now: float) -> list[float]:
        """Make room at the front."""
        self.queue.append(now)
        gone = []
        while len(self.queue) > 1 and self.ends_at(now, len(self.queue)) > now + KEPT * OBJECTIVE_S:
            gone.append(self.queue.popleft())
        return gone


class AdaptiveLifo(Newest):
    """First come, first served until the front has waited half of the objective; then the newest first."""

    def arrive(self, now: float) -> list[float]:
        """Take it; refuse what has waited too long."""
        self.queue.append(now)
        return self._late(now)

    def _late(self, now: float) -> list[float]:
        gone = []
        while len(self.queue) > 1 and now + self.pace > self.queue[0] + KEPT * OBJECTIVE_S:
            gone.append(self.queue.popleft())
        return gone

    def take(self, now: float) -> tuple[list[float], list[float]]:
        """Newest first under pressure."""
        gone = self._late(now)
        size = min(self.limit(), len(self.queue))
        if self.queue and now - self.queue[0] > OBJECTIVE_S / 2:
            return [self.queue.pop() for _ in range(size)], gone
        return [self.queue.popleft() for _ in range(size)], gone


class Codel(Newest):
    """CoDel as servers use it: the front may wait the objective, in a standing queue a tenth of it."""

    def __init__(self) -> None:
        super().__init__()
        self.empty_at = 0.0

    def arrive(self, now: float) -> list[float]:
        """Take it."""
        if not self.queue and self.free_at <= now:
            self.empty_at = now
        self.queue.append(now)
        return []

    def take(self, now: float) -> tuple[list[float], list[float]]:
        """Refuse the front that waited longer than is allowed."""
        allowed = KEPT * OBJECTIVE_S if now - self.empty_at < OBJECTIVE_S else OBJECTIVE_S / 10
        gone = []
        while len(self.queue) > 1 and now - self.queue[0] > allowed - self.pace:
            gone.append(self.queue.popleft())
        if len(self.queue) <= self.limit():
            self.empty_at = now
        batch, _ = super().take(now)
        return batch, gone


def run(
    make: Callable[[], Discipline],
    rate: float,
    seconds: float,
    seed: int,
    speed: Callable[[float], float] = lambda _: 1.0,
) -> Outcome:
    """Drive one discipline; `speed` multiplies the time of a text at a second."""
    draws = np.random.default_rng(seed)
    arrivals = np.cumsum(draws.exponential(1 / rate, int(rate * seconds)))
    scatter = draws.gamma(20.0, 1 / 20.0, 2 * len(arrivals) + 1000)
    queue, found = make(), Outcome()
    busy: list[float] = []
    events: list[tuple[float, int, list[float]]] = [(float(at), 0, []) for at in arrivals]
    heapq.heapify(events)
    draw = 0

    def refuse(now: float, gone: list[float]) -> None:
        found.refusals.extend(now - at for at in gone)

    def start(now: float) -> None:
        nonlocal draw, busy
        busy, gone = queue.take(now)
        refuse(now, gone)
        if busy:
            spent = TEXT_S * speed(now) * float(scatter[draw : draw + len(busy)].sum())
            draw += len(busy)
            queue.free_at = now + queue.pace * len(busy)
            heapq.heappush(events, (now + spent, 1, busy))
            queue.pace += 0.1 * (spent / len(busy) - queue.pace)

    while events:
        now, kind, done = heapq.heappop(events)
        if kind == 0:
            refuse(now, queue.arrive(now))
            if not busy:
                start(now)
            continue
        for at in done:
            found.latencies.append(now - at)
            if now - at <= OBJECTIVE_S:
                found.within += 1
            else:
                found.late += 1
        busy = []
        start(now)
    return found


DISCIPLINES: dict[str, Callable[[], Discipline]] = {
    "first come, 5 s (before)": Fifo,
    "refuse the newest": Newest,
    "refuse the newest, half the room": NewestAtHalf,
    "refuse the oldest": Oldest,
    "adaptive LIFO": AdaptiveLifo,
    "CoDel": Codel,
}


def table(seconds: float = 60.0) -> list[str]:
    """Return the rows of the comparison in Markdown."""
    rows = [
        "| discipline | load | answered in time | late | p50 ms | p99 ms | refused after, p50 ms | p99 ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    cases: list[tuple[str, float, Callable[[float], float]]] = [
        ("0.8", 160.0, lambda _: 1.0), ("1", 200.0, lambda _: 1.0), ("2", 400.0, lambda _: 1.0),
        ("3", 600.0, lambda _: 1.0),
        ("1, and half the speed for one second of five", 200.0, lambda at: 2.0 if at % 5 < 1 else 1.0),
    ]  # fmt: skip
    for name, rate, speed in cases:
        for title, make in DISCIPLINES.items():
            got = run(make, rate, seconds, 1, speed)
            ms = np.array(got.latencies) * 1e3
            gone = np.array(got.refusals or [np.nan]) * 1e3
            rows.append(
                f"| {title} | {name} | {got.within / seconds:.0f}/s | {got.late / seconds:.1f}/s "
                f"| {np.percentile(ms, 50):.0f} | {np.percentile(ms, 99):.0f} "
                f"| {np.percentile(gone, 50):.0f} | {np.percentile(gone, 99):.0f} |"
            )
    return rows


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
