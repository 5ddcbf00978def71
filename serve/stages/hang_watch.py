"""Tells a stage that hangs from clients whose deadlines are short."""

from __future__ import annotations

import asyncio

from serve.stages.breaker import Breaker
from serve.stages.forecast import OUTLIER
from serve.types.clock import Clock

HANG_S = 1.0
"""A call that is out for less than this, or than OUTLIER times the usual, is never taken for lost."""


class HangWatch:
    """Of the calls that came too late for all their clients one runs on, as a witness.

    If it is not answered either, and nothing else was meanwhile, the late calls were failures of the stage;
    if it is, they say nothing about it.

    Args:
        breaker: of the stage.
        clock: seconds.
    """

    __slots__ = ("_breaker", "_clock", "_unheard", "_witness")

    def __init__(self, breaker: Breaker, clock: Clock) -> None:
        self._breaker = breaker
        self._clock = clock
        self._witness: asyncio.Task[None] | None = None
        self._unheard = 0

    def heard(self) -> None:
        """The stage answered some call."""
        self._unheard = 0

    def runs_on(self, task: asyncio.Task[None], sent_at: float, usual_s: float) -> bool:
        """Return whether a late call is to run on; it is cancelled when it has been out for too long."""
        if self._witness is not None:
            self._unheard += 1
            return False
        self._witness = task
        left_s = max(OUTLIER * usual_s, HANG_S) - (self._clock() - sent_at)
        asyncio.get_running_loop().call_later(max(left_s, 0.0), self._judge, task)
        task.add_done_callback(self._ended)
        return True

    def end(self) -> asyncio.Task[None] | None:
        """End the witness, which says nothing then, and return it."""
        witness = self._witness
        if witness is not None:
            witness.cancel()
        return witness

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._witness = None

    def _judge(self, task: asyncio.Task[None]) -> None:
        if task.done():
            return
        task.cancel()
        failures, self._unheard = 1 + self._unheard, 0
        for _ in range(failures):
            self._breaker.failed(self._clock(), "it does not answer in time")
