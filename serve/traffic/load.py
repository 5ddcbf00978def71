"""Whether there is processor time to spare: of the machine, of a container's quota, of the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from runtime.machine import cpu_quotas
from serve.types.clock import Clock

_LOOK_EVERY_S = 0.25

Meter = tuple[Callable[[], float], float]
"""Gives seconds of work so far, of all cores; and how many cores there are."""


class CpuLoad:
    """Whether any of what requests run on is busier than `limit`; looks a few times a second at most.

    Call it on the event loop, whose own thread is one of the things that it looks at.

    Args:
        limit: share; None: nothing is ever too busy.
        clock: seconds.
        root: where /proc and /sys are found.
    """

    def __init__(self, limit: float | None, clock: Clock = time.monotonic, root: Path = Path("/")) -> None:
        self._limit = limit
        self._clock = clock
        self._meters = [] if limit is None else [(time.thread_time, 1.0), _machine(), *_quotas(root)]
        self._looked_at = clock()
        self._used = [used() for used, _ in self._meters]
        self._share = 0.0

    def __call__(self) -> bool:
        """Return whether it is."""
        if self._limit is None:
            return False
        now = self._clock()
        elapsed = now - self._looked_at
        if elapsed >= _LOOK_EVERY_S:
            before, self._used = self._used, [used() for used, _ in self._meters]
            self._looked_at = now
            self._share = max(
                (after - then) / (cores * elapsed)
                for then, after, (_, cores) in zip(before, self._used, self._meters, strict=True)
            )
        return self._share > self._limit


def _machine() -> Meter:
    return _busy_s, float(psutil.cpu_count() or 1)


def _busy_s() -> float:
    """Return busy seconds of all processors since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _quotas(root: Path) -> list[Meter]:
    """Return a meter for each control group whose quota binds this process (version 2)."""
    return [
        (lambda stat=folder / "cpu.stat": _used_s(stat), cores)  # type: ignore[misc]
        for folder, cores in cpu_quotas(root)
        if (folder / "cpu.stat").is_file()
    ]


def _used_s(stat: Path) -> float:
    words = stat.read_text(encoding="ascii").split()
    return float(words[words.index("usage_usec") + 1]) / 1e6 if "usage_usec" in words else 0.0
