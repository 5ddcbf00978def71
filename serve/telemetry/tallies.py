"""Counts kept in plain numbers, and written to where scrapes find them a few times a second.

A metric of prometheus_client in multiprocess mode is a place in a mapped file, and moving it costs a request
more than the rest of what it does with its figures. So requests count in lists and floats of this process,
and `Tallies.flush` adds what has gathered to the metrics. Totals are exact once it has run: see `Tallies`.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from bisect import bisect_left
from typing import Any
from weakref import WeakMethod

from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

FLUSH_S = 0.1
OTHERS_FLUSH_S = FLUSH_S + 0.05
"""After this the other processes have written what they had counted before; their loops may be busy."""
LOOP_ANSWERS_S = 2.0
"""A scrape waits no longer for a loop that is busy; it then lacks what the last flush had not yet."""


class Count:
    """What a counter has gathered."""

    __slots__ = ("_metric", "value")

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self.value: float = 0

    def flush(self) -> None:
        """Add it to the counter."""
        if self.value:
            self._metric.inc(self.value)
            self.value = 0


class Spread:
    """What a histogram has gathered."""

    __slots__ = ("_bounds", "_counts", "_metric", "_seen", "_sum")

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self._bounds: list[float] = metric._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._seen = False

    def observe(self, value: float) -> None:
        """Take a value into account."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        self._seen = True

    def flush(self) -> None:
        """Add it to the histogram, which counts each value in one bucket and sums them up when scraped."""
        if not self._seen:
            return
        for i, count in enumerate(self._counts):
            if count:
                self._metric._buckets[i].inc(count)
                self._counts[i] = 0
        self._metric._sum.inc(self._sum)
        self._sum, self._seen = 0.0, False


class Tallies:
    """The tallies of one process, by metric and labels. Used on its event loop, or where there is none.

    They are flushed right after the first change, then every `FLUSH_S` while there are changes, when the
    owner says so (before a scrape, at the end of draining) and when the process ends in order. A process
    that is killed takes along what it counted in its last `FLUSH_S`. Without a running event loop every
    change is flushed at once.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Any] = {}
        self._is_due = False
        self._flushed_at = float("-inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        flush = WeakMethod(self.flush)
        atexit.register(lambda: (found := flush()) and found())

    def count(self, metric: Counter, *labels: str) -> Count:
        """Return the tally of a counter."""
        found: Count | None = self._found.get((metric, *labels))
        if found is None:
            found = self._found[metric, *labels] = Count(_labelled(metric, labels))
        return found

    def spread(self, metric: Histogram, *labels: str) -> Spread:
        """Return the tally of a histogram."""
        found: Spread | None = self._found.get((metric, *labels))
        if found is None:
            found = self._found[metric, *labels] = Spread(_labelled(metric, labels))
        return found

    def changed(self) -> None:
        """Something was counted: have it flushed."""
        if self._is_due:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        self._is_due = True
        self._loop = loop
        wait_s = self._flushed_at + FLUSH_S - loop.time()
        if wait_s > 0:
            loop.call_later(wait_s, self._flush_on, loop)
        else:
            loop.call_soon(self._flush_on, loop)

    def flush(self) -> None:
        """Write all that has gathered."""
        for tally in self._found.values():
            tally.flush()

    def flush_from_anywhere(self) -> None:
        """Write all that has gathered, from any thread: where counts change on a loop, it is done there."""
        loop = self._loop
        if loop is None or loop.is_closed() or not loop.is_running() or _is_running_here(loop):
            self.flush()
            return
        done = threading.Event()
        loop.call_soon_threadsafe(self.flush)
        loop.call_soon_threadsafe(done.set)
        done.wait(LOOP_ANSWERS_S)

    def _flush_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_due = False
        self._flushed_at = loop.time()
        self.flush()


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _labelled(metric: MetricWrapperBase, labels: tuple[str, ...]) -> Any:
    return metric.labels(*labels) if labels else metric
