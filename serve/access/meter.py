"""What one key has used and may use in one process: its part of the bucket, and of the day's quotas. No I/O.

A replica answers by its own part alone, so that a request waits for nobody. Parts are moved between replicas
several times a second by the ledger (ledger.py), and what a part cannot hold goes with them, so that together
the replicas admit what one bucket would.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from contract.errors import LimitReached
from serve.access.keys import KeyLimits

DAY_S = 86_400
LONGEST_RETRY_S = 60.0
_UNTIL_HEARD = 0.01
"""Share of a day's quota that all replicas together may use before the ledger has answered them."""
_LEAST_CAPACITY = 1.0
_RETRY_S = 1.0
"""Within so long other replicas have given up what they hold of a day's quota, if there is enough of it."""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What a replica tells the ledger of one key.

    Attributes:
        asked: texts that asked since the last report, refused ones too.
        share: of the rate, in force here.
        level: tokens here; negative after a request larger than the bucket.
        spill: tokens that came and had no room here.
        day: number of the UTC day that the rest is about.
        requests, usd: used here on that day.
        requests_cap, usd_cap: what may be used here on that day, in force.
        meter, epoch: tell apart who counted before under the same replica's name, and a day that began twice.
        wanted, wanted_usd: of the largest request that was refused since the last report for want of a cap.
    """

    asked: float
    share: float
    level: float
    spill: float
    day: int
    requests: int
    usd: float
    requests_cap: float
    usd_cap: float
    meter: str
    epoch: int
    wanted: int
    wanted_usd: float


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What the ledger answers: the part of one key that a replica holds from now on.

    Attributes:
        share: of the rate.
        tokens: to be added to the level.
        day: number of the UTC day that the caps are about.
        requests_cap, usd_cap: what may be used there on that day in all.
        requests_most, usd_most: what might be, if others gave up all that they have not used.
    """

    share: float
    tokens: float
    day: int
    requests_cap: float
    usd_cap: float
    requests_most: float
    usd_most: float


class Meter:
    """One key's part in this process.

    Args:
        limits: of the key; a newer book may set others.
        replicas: how many share the key, as far as is known.
        now: clock second of time that only grows.
        wall: second of the wall clock, for the day.
    """

    __slots__ = (
        "_at", "_day", "_epoch", "_id", "_level", "_limits", "_requests_most", "_reserved", "_share",
        "_spill", "_usd_most", "_wanted", "_wanted_usd", "asked", "requests", "requests_cap", "usd",
        "usd_cap",
    )  # fmt: skip

    def __init__(self, limits: KeyLimits, replicas: int, now: float, wall: float) -> None:
        self._limits = limits
        self._share = 1.0 / replicas
        self._level = self._capacity
        self._spill = 0.0
        self._at = now
        self.asked = 0.0
        self._id = secrets.token_hex(6)
        self._epoch = 0
        self._reserved = 0.0
        self._wanted, self._wanted_usd = 0, 0.0
        self.requests = 0
        self.usd = 0.0
        self._begin(_day(wall), _UNTIL_HEARD / replicas)

    @property
    def limits(self) -> KeyLimits:
        """What is in force."""
        return self._limits

    @limits.setter
    def limits(self, limits: KeyLimits) -> None:
        if limits != self._limits:
            self._limits = limits
            self._level = min(self._level, self._capacity)

    @property
    def _capacity(self) -> float:
        return max(self._limits.tokens * self._share, _LEAST_CAPACITY)

    @property
    def in_usd(self) -> bool:
        """Whether a request has to say what it costs at the most."""
        return self._limits.usd_per_day is not None

    def admit(self, texts: int, usd: float, now: float, wall: float) -> None:
        """Take the part of a request of so many texts that costs so much at the most.

        Raises LimitReached, and then nothing is taken.
        """
        self.asked += texts
        limits = self._limits
        if limits.daily:
            self._admit_today(texts, usd, wall)
        if limits.rate_per_s is not None:
            self._refill(now)
            needed = min(texts, self._capacity)
            if self._level + 1e-9 < needed:
                wait_s = (needed - self._level) / max(limits.rate_per_s * self._share, 1e-6)
                raise LimitReached(
                    f"the key's rate is used up: {limits.rate_per_s:g} texts a second",
                    retry_after_s=min(wait_s, LONGEST_RETRY_S),
                )
            self._level -= texts
        self.requests += texts
        self._reserved += usd

    def leave(self, texts: int, usd: float, *, answered: bool) -> None:
        """Take note that an admitted request has ended; one without an answer costs nothing of the day."""
        self._reserved = max(0.0, self._reserved - usd)
        if not answered:
            self.requests = max(0, self.requests - texts)

    def charge(self, usd: float) -> None:
        """Book what an answered request cost."""
        self.usd += usd

    def report(self, now: float, wall: float) -> KeyReport:
        """Return what the ledger is told, and begin to count anew what asked."""
        self._follow_day(wall, 0.0)
        if self._limits.rate_per_s is not None:
            self._refill(now)
        told = KeyReport(
            self.asked, self._share, self._level, self._spill, self._day, self.requests, self.usd,
            self.requests_cap, max(self.usd_cap, self.usd + self._reserved), self._id, self._epoch,
            self._wanted, self._wanted_usd,
        )  # fmt: skip
        self.asked = 0.0
        self._wanted, self._wanted_usd = 0, 0.0
        self._spill = 0.0
        return told

    def take_back(self, told: KeyReport) -> None:
        """Undo what `report` began, where the ledger did not hear it."""
        self.asked += told.asked
        self._wanted = max(self._wanted, told.wanted)
        self._wanted_usd = max(self._wanted_usd, told.wanted_usd)
        self._spill = min(self._spill + told.spill, self._limits.tokens)

    def grant(self, granted: KeyGrant, now: float) -> None:
        """Hold what the ledger answered."""
        if self._limits.rate_per_s is not None:
            self._refill(now)
        self._share = granted.share
        self._level += granted.tokens
        if granted.day == self._day:
            self.requests_cap, self.usd_cap = granted.requests_cap, granted.usd_cap
            self._requests_most, self._usd_most = granted.requests_most, granted.usd_most

    def _follow_day(self, wall: float, share: float) -> None:
        """Begin anew on another day; on an earlier one too, where the clock was ahead, as somebody else."""
        day = _day(wall)
        if day != self._day:
            self._epoch += day < self._day
            self._begin(day, share)

    def _begin(self, day: int, share: float) -> None:
        limits = self._limits
        self._day = day
        self.requests = 0
        self.usd = 0.0
        self.requests_cap = _first_cap(limits.requests_per_day, share)
        self.usd_cap = _first_cap(limits.usd_per_day, share)
        self._requests_most = _first_cap(limits.requests_per_day, 1.0)
        self._usd_most = _first_cap(limits.usd_per_day, 1.0)
        self._wanted, self._wanted_usd = 0, 0.0

    def _admit_today(self, texts: int, usd: float, wall: float) -> None:
        self._follow_day(wall, _UNTIL_HEARD * self._share)
        limits = self._limits
        if limits.requests_per_day is not None and self.requests + texts > self.requests_cap:
            words = f"{limits.requests_per_day} texts"
            if self.requests + texts > self._requests_most:
                raise _spent("requests_per_day", words, wall)
            self._wanted = max(self._wanted, texts)
            raise _elsewhere("requests_per_day", words)
        needed = self.usd + self._reserved + usd
        if limits.usd_per_day is not None and (needed > self.usd_cap or self.usd >= self.usd_cap):
            words = f"{limits.usd_per_day:g} USD"
            if needed > self._usd_most or self.usd >= self._usd_most:
                raise _spent("usd_per_day", words, wall)
            self._wanted_usd = max(self._wanted_usd, self._reserved + usd)
            raise _elsewhere("usd_per_day", words)

    def _refill(self, now: float) -> None:
        came = max(0.0, now - self._at) * (self._limits.rate_per_s or 0.0) * self._share
        self._at = max(self._at, now)
        level = self._level + came
        over = level - self._capacity
        if over > 0:
            self._spill = min(self._spill + min(over, came), self._limits.tokens)
            level -= min(over, came)
        self._level = level


class Visit:
    """An admitted request until its end, which is noted even where nobody comes to say so.

    A task that is cancelled before its first step runs no `finally`, but lets go what it was given.
    """

    __slots__ = ("_meter", "_texts", "_usd")

    def __init__(self, meter: Meter, texts: int, usd: float) -> None:
        self._meter: Meter | None = meter
        self._texts = texts
        self._usd = usd

    def end(self, *, answered: bool) -> None:
        """Note the end; a second one changes nothing."""
        if self._meter is not None:
            self._meter.leave(self._texts, self._usd, answered=answered)
            self._meter = None

    def __del__(self) -> None:
        self.end(answered=False)


def _first_cap(quota: float | None, share: float) -> float:
    return inf if quota is None else quota * share


def _day(wall: float) -> int:
    return int(wall // DAY_S)


def day_name(day: int) -> str:
    """Return a day as people write it."""
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()


def _spent(limit: str, words: str, wall: float) -> LimitReached:
    return LimitReached(
        f"the key's {words} of this day are used up, or too little is left; the next day begins at 0:00 UTC",
        limit=limit,
        retry_after_s=DAY_S - wall % DAY_S,
    )


def _elsewhere(limit: str, words: str) -> LimitReached:
    return LimitReached(
        f"what is left of the key's {words} of this day is held for requests under way or by other replicas",
        limit=limit,
        retry_after_s=_RETRY_S,
    )
