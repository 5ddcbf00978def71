"""When a stage will have answered: learned from what its batches and calls took. No clock."""

from __future__ import annotations

from math import ceil, inf

GAIN = 0.1
QUICK_GAIN = 0.5
"""For times below half of what was expected: the first call of a stage is slow, and would keep others out."""
OUTLIER = 4.0
"""A time beyond so many times the expected one counts as that: a pause is no change of pace."""
BATCH_SHARE = 0.25
"""Of the time that there is, a batch (or what is under way of a remote stage) takes at most so much."""
MARGIN_SHARE = 0.3
PROBE = 1.25
"""While batches are all alike in size, one may be so much larger, to learn what that takes."""
MOST_SHARE = 0.5
"""Of the time that there is, what is under way to find out takes at most so much."""


class Pace:
    """Seconds by size, a + b * size: least squares, newer ones weighing more.

    Attributes:
        start_s: a.
        each_s: b.
        probe: the size that would tell a from b; 0: they are known apart.
    """

    __slots__ = ("_cross", "_items", "_seconds", "_square", "each_s", "probe", "start_s")

    def __init__(self) -> None:
        self.start_s = 0.0
        self.each_s = 0.0
        self.probe = 0
        self._items = 0.0
        self._seconds = 0.0
        self._square = 0.0
        self._cross = 0.0

    def of(self, items: float) -> float:
        """Return the time that so many items take together; 0 before anything was learned."""
        return self.start_s + self.each_s * items if items > 0 else 0.0

    def learn(self, items: int, seconds: float) -> None:
        """Take one time into account."""
        if not self._items:
            self._items, self._seconds = float(items), seconds
        else:
            gain, known = GAIN, self.of(items)
            if known > 0:
                seconds = min(seconds, OUTLIER * known)
                gain = QUICK_GAIN if 2 * seconds < known else GAIN
            more, longer = items - self._items, seconds - self._seconds
            self._items += gain * more
            self._seconds += gain * longer
            self._square = (1 - gain) * (self._square + gain * more * more)
            self._cross = (1 - gain) * (self._cross + gain * more * longer)
        slope = whole = self._seconds / self._items
        if self._square > 0.01 * self._items * self._items:
            slope = self._cross / self._square
            self.probe = 0
        else:  # too alike in size to tell start from pace: all is pace, which errs towards too long
            self.probe = int(max(PROBE * self._items, self._items + 1))
        self.each_s = min(max(slope, 0.0), whole)
        self.start_s = max(self._seconds - self.each_s * self._items, 0.0)


class Forecast:
    """When what waits at a stage will be answered.

    Args:
        max_items: of a batch.

    Attributes:
        limit: items of a batch now: fewer where a full one would take too much of the time there is.
        horizon_s: that time, as of late; inf where requests have none.
        margin_s: added since answers come later than was expected: mean and twice the deviation, bounded.
    """

    __slots__ = ("_deviation_s", "_late_s", "_max_items", "horizon_s", "limit", "margin_s", "pace")

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._late_s = 0.0
        self._deviation_s = 0.0
        self.limit = max_items
        self.horizon_s = inf
        self.margin_s = 0.0
        self.pace = Pace()

    def ends_s(self, now: float, place: int, waiting: int) -> float:
        """Return the seconds from now until an item in that place, 1 being the first to run, is answered."""
        raise NotImplementedError

    def given(self, seconds: float) -> None:
        """A request came that has so much time."""
        seconds = max(seconds, 0.0)
        if self.horizon_s == inf:
            self.horizon_s = seconds
            self._set_limit()
        else:
            self.horizon_s += GAIN * (seconds - self.horizon_s)

    def learn(self, items: int, seconds: float) -> None:
        """A batch of so many items took so long."""
        self.pace.learn(items, seconds)
        if self.horizon_s != inf:
            self._set_limit()

    def answered(self, late_s: float) -> None:
        """A request was answered so much later (or earlier, below 0) than expected."""
        error = late_s - self._late_s
        self._late_s += GAIN * error
        self._deviation_s += GAIN * (abs(error) - self._deviation_s)
        margin_s = max(self._late_s + 2 * self._deviation_s, 0.0)
        self.margin_s = min(margin_s, MARGIN_SHARE * self.horizon_s)

    def _set_limit(self) -> None:
        pace = self.pace
        # Batches shorter than twice their start would cost more in starts than they save in waiting.
        most, each_s = max(BATCH_SHARE * self.horizon_s - pace.start_s, pace.start_s), pace.each_s
        if most >= each_s * self._max_items:
            self.limit = self._max_items
        else:
            self.limit = max(1, int(most / each_s), min(pace.probe, self._max_items))


class BatchForecast(Forecast):
    """Of a stage that runs here, `lanes` batches at a time."""

    __slots__ = ("_lanes", "_running", "_started_at")

    def __init__(self, max_items: int, lanes: int) -> None:
        super().__init__(max_items)
        self._lanes = lanes
        self._running = [0] * lanes
        self._started_at = [0.0] * lanes

    def started(self, lane: int, items: int, now: float) -> None:
        """A lane began a batch."""
        self._started_at[lane] = now
        self._running[lane] = items

    def ended(self, lane: int) -> None:
        """A lane is free."""
        self._running[lane] = 0

    def longest_s(self, now: float) -> float:
        """Return how long the batch that began first has been running; 0 where none is."""
        begun = [since for items, since in zip(self._running, self._started_at, strict=True) if items]
        return now - min(begun, default=now)

    def ends_s(self, now: float, place: int, waiting: int) -> float:
        """Return the seconds until that place is answered: what runs, and full batches up to it."""
        pace, lanes = self.pace, self._lanes
        rest = self._rest_s(0, now) if lanes == 1 else min(self._rest_s(lane, now) for lane in range(lanes))
        size = min(self.limit, max(waiting, place))
        batches = -(-place // size) if size else 0
        return rest + max(1.0, batches / lanes) * pace.of(size) + self.margin_s

    def _rest_s(self, lane: int, now: float) -> float:
        items = self._running[lane]
        return max(self.pace.of(items) - (now - self._started_at[lane]), 0.0) if items else 0.0


class CallForecast(Forecast):
    """Of a stage behind a handle, which others ask too: what counts is how fast its answers come back here.

    Attributes:
        under_way: items in calls.
    """

    __slots__ = ("_alone_s", "_each_s", "_last_at", "under_way")

    def __init__(self, max_items: int) -> None:
        super().__init__(max_items)
        self._alone_s = 0.0
        self._each_s = 0.0
        self._last_at = 0.0
        self.under_way = 0

    @property
    def window(self) -> float:
        """Items that may be under way: what comes back in a part of the time, so that queues stay here.

        Twice what comes back while a call is out that finds the stage idle, if that is more: where the
        stage holds more, the flow grows with it, and else only the wait.
        """
        horizon_s, each_s, alone_s = self.horizon_s, self._each_s, self._alone_s
        if horizon_s == inf or not each_s:
            return inf
        probe_s = min(2 * alone_s, max(MOST_SHARE * horizon_s, PROBE * alone_s))
        return max(1.0, BATCH_SHARE * horizon_s / each_s, ceil(probe_s / each_s))

    def came_back(self, items: int, sent_at: float, now: float, *, alone: bool = True) -> None:
        """A call of so many items was answered; `alone`: no other was out when it was sent."""
        if alone:
            took = now - sent_at
            self._alone_s = took if not self._alone_s else self._alone_s + GAIN * (took - self._alone_s)
        self.learn(items, now - sent_at)
        each = (now - max(self._last_at, sent_at)) / items
        if known := self._each_s:
            gain = QUICK_GAIN if 2 * each < known else GAIN
            self._each_s += gain * (min(each, OUTLIER * known) - known)
        else:
            self._each_s = each
        self._last_at = now

    def outlasted(self, items: int, seconds: float) -> None:
        """A call of so many items was given up after so long: it takes longer than that."""
        if seconds > self.pace.of(items):
            self.learn(items, seconds)

    def ends_s(self, now: float, place: int, waiting: int) -> float:  # noqa: ARG002
        """Return the seconds until that place is answered: by the flow of answers, at least one call.

        The flow of small calls says too little of what larger ones bring, so it is no longer than what is
        out and what waits take one call after another.
        """
        pace = self.pace
        calls = max(-(-place // self.limit), 1)
        in_turn = pace.of(self.under_way) + calls * pace.of(place / calls)
        flow = (self.under_way + place) * self._each_s
        return max(min(flow, in_turn), pace.of(min(place, self.limit))) + self.margin_s
