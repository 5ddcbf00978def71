"""Spaces requests out in time, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from contract.errors import RemoteFailure


class Rate:
    """Lets so many requests begin per second; one that gives up waiting takes no place. For one event loop.

    Args:
        per_s: how many; None: any number.
        clock: seconds.
    """

    def __init__(self, per_s: float | None, clock: Callable[[], float]) -> None:
        self._gap_s = 0.0 if per_s is None else 1 / per_s
        self._clock = clock
        self._next_at = 0.0
        self._in_line = 0
        self._line = asyncio.Lock()

    async def turn(self, until: float) -> None:
        """Wait for the next place. Raises RemoteFailure where that comes after clock second `until`."""
        if not self._gap_s:
            return
        wait_s = max(self._next_at - self._clock(), 0.0) + self._in_line * self._gap_s
        if self._clock() + wait_s >= until:
            raise RemoteFailure("busy", "its rate leaves no place in time", retry_after_s=wait_s)
        self._in_line += 1
        try:
            async with self._line:
                now = self._clock()
                at = max(now, self._next_at)
                await asyncio.sleep(at - now)
                self._next_at = at + self._gap_s
        finally:
            self._in_line -= 1
