"""What one key has used and may use in one process: its part of the bucket, and of the day's quotas. No I/O.

A replica answers by its own part alone, so that a request waits for nobody. Parts are moved between replicas
several times a second by the ledger (ledger.py), and what a part cannot hold goes with them, so that together
the replicas admit what one bucket would.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What the ledger answers: the part of one key that a replica holds from now on.

    Attributes:
        share: of the rate.
        tokens: to be added to the level.
        day: number of the UTC day that the caps are about.
        requests_cap, usd_cap: what may be used there on that day in all.
    """

    share: float
    tokens: float
    day: int
    requests_cap: float
    usd_cap: float


class Meter:
    """One key's part in this process.

    Args:
        limits: of the key; a newer book may set others.
        replicas: how many share the key, as far as is known.
        now: clock second of time that only grows.
        wall: second of the wall clock, for the day.
    """

    __slots__ = (
        "_at", "_day", "_level", "_limits", "_mean_usd", "_pending", "_share", "_spill", "asked",
        "requests", "requests_cap", "usd", "usd_cap",
    )  # fmt: skip

    def __init__(self, limits: KeyLimits, replicas: int, now: float, wall: float) -> None:
        self._limits = limits
        self._share = 1.0 / replicas
        self._level = self._capacity
        self._spill = 0.0
        self._at = now
        self.asked = 0.0
        self._pending = 0
        self._mean_usd = 0.0
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

    def admit(self, texts: int, now: float, wall: float) -> None:
        """Take the part of a request of so many texts. Raises LimitReached, and then nothing is taken."""
        self.asked += texts
        limits = self._limits
        if limits.daily:
            self._admit_today(texts, wall)
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
        self._pending += texts

    def leave(self, texts: int, *, answered: bool) -> None:
        """Take note that an admitted request has ended; one without an answer costs nothing of the day."""
        self._pending = max(0, self._pending - texts)
        if not answered:
            self.requests = max(0, self.requests - texts)

    def charge(self, usd: float, texts: int) -> None:
        """Book what an answered request cost."""
        self.usd += usd
        self._mean_usd += 0.1 * (usd / texts - self._mean_usd) if self._mean_usd else usd / texts

    def report(self, now: float, wall: float) -> KeyReport:
        """Return what the ledger is told, and begin to count anew what asked."""
        if _day(wall) > self._day:
            self._begin(_day(wall), 0.0)
        if self._limits.rate_per_s is not None:
            self._refill(now)
        told = KeyReport(
            self.asked, self._share, self._level, self._spill, self._day, self.requests, self.usd,
            self.requests_cap, self.usd_cap,
        )  # fmt: skip
        self.asked = 0.0
        self._spill = 0.0
        return told

    def take_back(self, told: KeyReport) -> None:
        """Undo what `report` began, where the ledger did not hear it."""
        self.asked += told.asked
        self._spill = min(self._spill + told.spill, self._limits.tokens)

    def grant(self, granted: KeyGrant, now: float) -> None:
        """Hold what the ledger answered."""
        if self._limits.rate_per_s is not None:
            self._refill(now)
        self._share = granted.share
        self._level += granted.tokens
        if granted.day == self._day:
            self.requests_cap, self.usd_cap = granted.requests_cap, granted.usd_cap

    def _begin(self, day: int, share: float) -> None:
        limits = self._limits
        self._day = day
        self.requests = 0
        self.usd = 0.0
        self.requests_cap = _first_cap(limits.requests_per_day, share)
        self.usd_cap = _first_cap(limits.usd_per_day, share)

    def _admit_today(self, texts: int, wall: float) -> None:
        if _day(wall) > self._day:
            self._begin(_day(wall), _UNTIL_HEARD * self._share)
        limits = self._limits
        if limits.requests_per_day is not None and self.requests + texts > self.requests_cap:
            raise _spent("requests_per_day", f"{limits.requests_per_day} texts", wall)
        if limits.usd_per_day is not None and (
            self.usd + (self._pending + texts) * self._mean_usd > self.usd_cap or self.usd_cap <= 0
        ):
            raise _spent("usd_per_day", f"{limits.usd_per_day:g} USD", wall)

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

    __slots__ = ("_meter", "_texts")

    def __init__(self, meter: Meter, texts: int) -> None:
        self._meter: Meter | None = meter
        self._texts = texts

    def end(self, *, answered: bool) -> None:
        """Note the end; a second one changes nothing."""
        if self._meter is not None:
            self._meter.leave(self._texts, answered=answered)
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
        f"the key's {words} of this day are used up; the next day begins at 0:00 UTC",
        limit=limit,
        retry_after_s=DAY_S - wall % DAY_S,
    )
