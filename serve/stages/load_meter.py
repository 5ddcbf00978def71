"""What one process tells of its load, for scaling: how much waits, and what share of its time it works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from serve.types.clock import Clock
from serve.types.recorder import BatchRecord, PassingOn, Recorder


class BusyShare:
    """The share of time since the last look in which work was done.

    Args:
        used_s: seconds of work so far, of all lanes.
        lanes: that can work at a time.
    """

    def __init__(self, used_s: Callable[[], float], lanes: int = 1, *, clock: Clock = time.monotonic) -> None:
        self._used_s = used_s
        self._lanes = lanes
        self._clock = clock
        self._looked_at = clock()
        self._used_then = used_s()
        self._was_inside = False

    def look(self, inside: int = 0) -> float:
        """Return the share, at most 1, since the last look.

        Args:
            inside: texts that wait or run now. Where some did at the last look too and no batch has ended
                since, one long batch has run all the while.
        """
        now, used = self._clock(), self._used_s()
        elapsed, worked = now - self._looked_at, used - self._used_then
        self._looked_at, self._used_then = now, used
        all_the_while = self._was_inside and inside > 0 and worked == 0.0
        self._was_inside = inside > 0
        if all_the_while:
            return 1.0
        return min(1.0, worked / (elapsed * self._lanes)) if elapsed > 0 else 0.0


class TimedBatches(PassingOn):
    """A recorder that adds up how long batches ran, and passes everything on."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.seconds = 0.0

    def batch(self, record: BatchRecord) -> None:
        """Add its time, and pass it on."""
        self.seconds += record.inference_s
        super().batch(record)


class Asked:
    """What gateways say, with each call, that they have outstanding for this deployment.

    It counts while a call of that gateway is inside, however long that takes, and without those calls that
    have ended. What is left when the last of them ends waits in the gateway, or is with other replicas: it
    counts for a moment more, in which the next call comes where there is one.

    Args:
        moment_s: that long.
    """

    def __init__(self, moment_s: float, *, clock: Clock = time.monotonic) -> None:
        self._moment_s = moment_s
        self._clock = clock
        self._told: dict[tuple[str, str], _Told] = {}

    def begins(self, gateway: str, build: str, texts: int) -> None:
        """Note, as a call comes in, what its gateway has outstanding of one build, the call's texts too."""
        told = self._told.setdefault((gateway, build), _Told())
        told.texts = texts
        told.calls += 1

    def ends(self, gateway: str, build: str, texts: int) -> None:
        """Take off the texts of a call that is answered."""
        told = self._told[gateway, build]
        told.texts = max(0, told.texts - texts)
        told.calls -= 1
        told.ended_at = self._clock()

    def total(self) -> int:
        """Return what all gateways have outstanding."""
        now = self._clock()
        self._told = {
            key: told
            for key, told in self._told.items()
            if told.calls or now - told.ended_at < self._moment_s
        }
        return sum(told.texts for told in self._told.values())


@dataclass(slots=True)
class _Told:
    texts: int = 0
    calls: int = 0
    ended_at: float = 0.0
