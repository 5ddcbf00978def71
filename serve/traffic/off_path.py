"""The queue of comparisons: bounded, the first to shed, still while anything live is inside."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from serve.settings.traffic import TrafficSettings
from serve.traffic.comparison import Comparison
from serve.types.clock import Clock
from serve.types.messages import ClassifyResult

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    comparison: Comparison
    texts: Sequence[str]
    labels: Sequence[str]
    variants: Sequence[str]


class MachineLoad:
    """Whether the machine is busier than `limit`; looks a few times a second at most."""

    def __init__(self, limit: float | None, clock: Clock = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._looked_at = clock()
        self._share = 0.0
        self._spent = _spent()

    def __call__(self) -> bool:
        """Return whether it is."""
        if self._limit is None:
            return False
        now = self._clock()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            busy, idle = _spent()
            busy_before, idle_before = self._spent
            self._spent = busy, idle
            both = busy - busy_before + idle - idle_before
            self._share = (busy - busy_before) / both if both > 0 else 0.0
        return self._share > self._limit


def _spent() -> tuple[float, float]:
    """Return busy and idle seconds of all processors since the machine started."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return sum(times) - idle, idle


class OffPath:
    """Runs comparisons one text at a time, when nothing live is inside.

    A live request that comes meanwhile waits for one text of one stage at most.

    Args:
        settings: bounds.
        live_texts: how many texts of live requests this replica holds.
        busy: whether the machine has nothing to spare.
    """

    def __init__(
        self, settings: TrafficSettings, live_texts: Callable[[], int], busy: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._live_texts = live_texts
        self._busy = busy
        self._jobs: deque[_Job] = deque()
        self._waiting_texts = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def waiting_texts(self) -> int:
        """Texts whose comparison has not ended."""
        return self._waiting_texts

    def offer(self, comparison: Comparison, texts: Sequence[str], result: ClassifyResult) -> None:
        """Take an answered request for comparison, as far as there is room."""
        rows: Sequence[int] = range(len(texts))
        if comparison.kind == "shadow" and any(result.degraded):
            rows = [row for row in rows if not result.degraded[row]]
            comparison.tally.compared("degraded", len(texts) - len(rows))
        taken = rows[: max(0, self._settings.max_waiting_texts - self._waiting_texts)]
        if len(taken) < len(rows):
            comparison.tally.compared("shed", len(rows) - len(taken))
        if not taken:
            return
        labels = result.labels
        self._jobs.append(
            _Job(
                comparison,
                [texts[row] for row in taken],
                [str(labels[result.predicted[row]]) for row in taken],
                [result.variant[row] for row in taken],
            )
        )
        self._waiting_texts += len(taken)
        self._work.set()

    def forget(self) -> None:
        """Shed what waits: it is for a snapshot that is out of force."""
        for job in self._jobs:
            job.comparison.tally.compared("shed", len(job.texts))
            self._waiting_texts -= len(job.texts)
        self._jobs.clear()

    def freed(self) -> None:
        """A live request has left."""
        if self._live_texts() <= self._settings.beside_texts:
            self._room.set()

    async def run(self) -> None:
        """Work off what waits, for ever."""
        while True:
            while not self._jobs:
                self._work.clear()
                await self._work.wait()
            job = self._jobs.popleft()
            for row in range(len(job.texts)):
                await self._one(job, row)
                self._waiting_texts -= 1

    async def _one(self, job: _Job, row: int) -> None:
        await asyncio.sleep(0)  # a stage that answers at once would keep the loop from live requests
        while self._live_texts() > self._settings.beside_texts:
            self._room.clear()
            # Requests for a variant by name leave without a word to here.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._room.wait()
        if self._busy():
            job.comparison.tally.compared("busy")
            return
        try:
            outcome = await job.comparison.run(job.texts[row], job.labels[row], job.variants[row])
        except Exception:
            log.exception("a comparison failed in a way that none should")
            outcome = "unresolved"
        job.comparison.tally.compared(outcome)
