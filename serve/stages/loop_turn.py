"""How much of one turn of the event loop stages may take for work that they do on it at once."""

from __future__ import annotations

import asyncio

TURN_S = 0.002


class LoopTurn:
    """Seconds that the stages of one process have run in the present turn of its event loop.

    What has come in by the time that a turn's share is used up waits in the queues, where admission sees
    it: sockets that nobody has read yet would hide an overload.

    Args:
        most_s: work at once ends for this turn when so much is used.
    """

    __slots__ = ("_noted", "_used_s", "most_s")

    def __init__(self, most_s: float = TURN_S) -> None:
        self.most_s = most_s
        self._used_s = 0.0
        self._noted = False

    @property
    def is_over(self) -> bool:
        """Whether work must wait for a later turn."""
        return self._used_s >= self.most_s

    def used(self, seconds: float) -> None:
        """A stage ran so long on the loop; called there."""
        self._used_s += seconds
        if not self._noted:
            self._noted = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._used_s = 0.0
        self._noted = False
