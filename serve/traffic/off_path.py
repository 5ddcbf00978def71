"""The queue of comparisons: bounded, the first to shed, still while anything live is inside."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from serve.settings.traffic import TrafficSettings
from serve.traffic.comparison import Comparison
from serve.types.clock import Clock
from serve.types.messages import ClassifyResult

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_BETWEEN_TURNS_S = 0.005
"""Where a turn of the loop brought requests, the next look is so much later."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """One text to compare; without an answer nothing can come of it, but its turn comes like any other's."""

    comparison: Comparison
    text: str
    label: str | None
    variant: str


class OffPath:
    """Runs comparisons one text at a time, when nothing live is inside and a turn brought nothing.

    Of a canary a few texts a second are compared whatever is inside: clients get its answers, and whether
    they are worse must not stay unknown for as long as a gateway is busy.

    Args:
        settings: bounds.
        live_texts: how many texts of live requests wait in this replica.
        busy: whether there is no processor time to spare.
        clock: seconds.
    """

    def __init__(
        self,
        settings: TrafficSettings,
        live_texts: Callable[[], int],
        busy: Callable[[], bool],
        clock: Clock = time.monotonic,
    ) -> None:
        self._settings = settings
        self._live_texts = live_texts
        self._busy = busy
        self._clock = clock
        self._pairs: deque[_Pair] = deque()
        self._under_way = 0
        self._arrivals = 0
        least_per_s = settings.canary_texts_per_s
        self._owed_every_s = 1.0 / least_per_s if least_per_s else float("inf")
        self._last_of_a_canary = float("-inf")
        self._work = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def waiting_texts(self) -> int:
        """Texts whose comparison has not ended."""
        return len(self._pairs) + self._under_way

    def arrived(self) -> None:
        """A live request has come."""
        self._arrivals += 1

    def offer(self, comparison: Comparison, texts: Sequence[str], result: ClassifyResult | None) -> None:
        """Take a request for comparison, as far as there is room; None: the arm did not answer it."""
        rows: Sequence[int] = range(len(texts))
        by_load = () if result is None else result.by_load
        if by_load and comparison.kind == "shadow":
            rows = [row for row in rows if not by_load[row]]
            comparison.tally.compared("degraded", len(texts) - len(rows))
        taken = rows[: max(0, self._settings.max_waiting_texts - self.waiting_texts)]
        if len(taken) < len(rows):
            comparison.tally.compared("shed", len(rows) - len(taken))
        for row in taken:
            if result is None or (by_load and by_load[row]):
                self._pairs.append(_Pair(comparison, texts[row], None, ""))
            else:
                label = result.label(row)
                self._pairs.append(_Pair(comparison, texts[row], label, result.variant[row]))
        if taken:
            self._work.set()

    def forget(self) -> None:
        """Shed what waits: it is for a snapshot that is out of force."""
        for pair in self._pairs:
            pair.comparison.tally.compared("shed")
        self._pairs.clear()

    def freed(self) -> None:
        """A live request has left."""
        if self._live_texts() <= self._settings.beside_texts:
            self._room.set()

    async def run(self) -> None:
        """Work off what waits, for ever."""
        while True:
            pair = await self._next()
            self._under_way = 1
            try:
                await self._compare(pair)
            finally:
                self._under_way = 0

    async def _next(self) -> _Pair:
        """Wait until a comparison may begin, and take it in the same step: what waits may be forgotten."""
        while True:
            while not self._pairs:
                self._work.clear()
                await self._work.wait()
            arrivals = self._arrivals
            await asyncio.sleep(0)  # a stage that answers at once would keep the loop from live requests
            if not self._pairs:
                continue
            inside = self._live_texts() > self._settings.beside_texts
            if not inside and arrivals == self._arrivals:
                return self._pairs.popleft()
            if (owed := self._owed()) is not None:
                return owed
            if inside:
                self._room.clear()
                # Requests for a variant by name leave without a word to here.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await self._room.wait()
            else:
                await asyncio.sleep(_BETWEEN_TURNS_S)

    def _owed(self) -> _Pair | None:
        """Take the newest text of a canary if one is due, so that what is known of it is of now."""
        if not self._is_due():
            return None
        for pair in reversed(self._pairs):
            if pair.comparison.kind == "canary":
                self._pairs.remove(pair)
                return pair
        return None

    def _is_due(self) -> bool:
        return self._clock() - self._last_of_a_canary >= self._owed_every_s

    async def _compare(self, pair: _Pair) -> None:
        comparison = pair.comparison
        canary = comparison.kind == "canary"
        if not (canary and self._is_due()) and self._busy():
            comparison.tally.compared("busy")
            return
        if canary:
            self._last_of_a_canary = self._clock()
        if pair.label is None:
            comparison.tally.compared("unresolved")
            return
        try:
            outcome = await comparison.run(pair.text, pair.label, pair.variant)
        except Exception:
            log.exception("a comparison failed in a way that none should")
            outcome = "unresolved"
        comparison.tally.compared(outcome)
