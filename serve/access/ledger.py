"""Where a key's parts come together: who holds how much of its rate and of the day's quotas. No I/O.

What is handed out never adds up to more than the limit: a replica gets only what no other may still hold, and
what it gives up is free when it says so. A replica that is silent for long has its part given to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, exp, floor, inf

from serve.access.keys import KeyLimits
from serve.access.meter import KeyGrant, KeyReport

LEASE_S = 10.0
"""A replica that is not heard for so long counts as gone."""
WARM_S = 1.0
"""For so long after its own start it confirms what replicas hold: others may not have reported yet."""
_MEMORY_S = 0.7
_FIRST_S = 0.25
_FLOOR = 0.02
_KEPT_DAYS = 2
_WANTED_S = 3.0
"""For so long what others could use of a day's quota is kept for a request that no cap could hold."""

Used = dict[str, tuple[int, float]]
"""Requests and USD by replica."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one replica tells: of every key that it has a part of, by name."""

    replica: str
    keys: Mapping[str, KeyReport]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the ledger answers to one replica: its parts by key, and how many replicas there are."""

    replicas: int
    keys: Mapping[str, KeyGrant]


@dataclass
class _KeyPart:
    """What one replica holds of one key."""

    heard_at: float
    demand: float
    share: float
    level: float
    day: int = 0
    requests_cap: float = 0.0
    usd_cap: float = 0.0
    meter: str = ""
    is_late: bool = False
    entry: str = ""
    wanted: int = 0
    wanted_usd: float = 0.0
    wanted_since: float = -inf
    wanted_until: float = -inf


@dataclass
class _Account:
    """One key."""

    parts: dict[str, _KeyPart] = field(default_factory=dict)
    pool: float = 0.0
    at: float | None = None
    opened_at: float = 0.0
    days: dict[int, Used] = field(default_factory=dict)

    def used(self, day: int) -> tuple[int, float]:
        """Return requests and USD of all replicas on a day, gone ones too."""
        found = self.days.get(day, {}).values()
        return sum(requests for requests, _ in found), sum(usd for _, usd in found)


class Ledger:
    """Divides each key's limits among the replicas.

    Args:
        now: clock second of its start.
        days: what was used before, by day and key and replica.
    """

    def __init__(self, now: float, days: Mapping[int, Mapping[str, Used]] | None = None) -> None:
        self._started_at = now
        self._heard: dict[str, float] = {}
        self._accounts: dict[str, _Account] = {}
        for day, keys in (days or {}).items():
            for name, used in keys.items():
                self._accounts.setdefault(name, _Account()).days[day] = dict(used)

    def exchange(self, report: Report, limits: Mapping[str, KeyLimits], now: float) -> Answer:
        """Take a replica's report and return its parts from now on.

        Args:
            report: of the replica.
            limits: of every key that has some, by name; others are answered nothing.
            now: clock second.
        """
        self._heard[report.replica] = now
        self._forget_gone(now)
        replicas = len(self._heard)
        warm = now - self._started_at >= WARM_S
        grants = {}
        for name, told in report.keys.items():
            if name in limits:
                account = self._accounts.setdefault(name, _Account())
                grants[name] = self._settle(account, report.replica, told, limits[name], now, warm=warm)
        return Answer(replicas, grants)

    def used(self, day: int) -> dict[str, Used]:
        """Return what was used on a day, by key and replica."""
        return {name: dict(a.days[day]) for name, a in self._accounts.items() if a.days.get(day)}

    def totals(self, day: int) -> dict[str, tuple[int, float]]:
        """Return requests and USD of a day by key."""
        return {name: account.used(day) for name, account in self._accounts.items()}

    def _settle(
        self, account: _Account, replica: str, told: KeyReport, limits: KeyLimits, now: float, *, warm: bool
    ) -> KeyGrant:
        self._collect(account, limits, now)
        part = self._part(account, replica, told, now)
        day = account.days.setdefault(told.day, {})
        before = day.get(part.entry, (0, 0.0))
        day[part.entry] = (max(before[0], told.requests), max(before[1], told.usd))
        while len(account.days) > _KEPT_DAYS:
            del account.days[min(account.days)]
        weight = self._weight(account, replica, limits)
        requests_cap, usd_cap = told.requests_cap, told.usd_cap
        if warm:
            part.share = 0.0
            part.share = min(weight, self._free(account))
            requests_cap, usd_cap = self._caps(account, replica, told, limits, weight)
        tokens = self._tokens(account, part, told, limits)
        part.requests_cap = max(told.requests_cap, requests_cap)
        part.usd_cap = max(told.usd_cap, usd_cap)
        used_requests, used_usd = account.used(told.day)
        requests_left = inf if limits.requests_per_day is None else limits.requests_per_day - used_requests
        usd_left = inf if limits.usd_per_day is None else limits.usd_per_day - used_usd
        return KeyGrant(
            part.share, tokens, told.day, requests_cap, usd_cap,
            told.requests + max(0.0, requests_left), told.usd + max(0.0, usd_left),
        )  # fmt: skip

    def _free(self, account: _Account) -> float:
        """Return the share that no replica holds; those that have not reported hold what each begins with."""
        silent = len(self._heard) - len(account.parts)
        held = sum(part.share for part in account.parts.values())
        return max(0.0, 1.0 - held - silent / len(self._heard))

    def _collect(self, account: _Account, limits: KeyLimits, now: float) -> None:
        """Put into the pool what the free share has brought since the last exchange."""
        if account.at is not None and account.parts:
            account.pool += self._free(account) * (limits.rate_per_s or 0.0) * max(0.0, now - account.at)
        if account.at is None:
            account.opened_at = now
        account.at = now

    def _part(self, account: _Account, replica: str, told: KeyReport, now: float) -> _KeyPart:
        """Return what the replica holds, brought to what it says."""
        part = account.parts.get(replica)
        if part is None or part.meter != told.meter:
            part = account.parts[replica] = _KeyPart(now, told.asked / _FIRST_S, told.share, told.level)
            part.meter = told.meter
            part.is_late = now - account.opened_at > WARM_S
        else:
            passed = now - part.heard_at
            keep = exp(-passed / _MEMORY_S)
            part.demand = keep * part.demand + (1 - keep) * told.asked / max(passed, 1e-3)
            part.heard_at = now
        part.share, part.level, part.day = told.share, told.level, told.day
        part.requests_cap, part.usd_cap = told.requests_cap, told.usd_cap
        part.entry = f"{replica}/{told.meter}.{told.epoch}"
        if told.wanted or told.wanted_usd:
            if part.wanted_until < now:
                part.wanted_since = now
            part.wanted, part.wanted_usd, part.wanted_until = told.wanted, told.wanted_usd, now + _WANTED_S
        return part

    def _weight(self, account: _Account, replica: str, limits: KeyLimits) -> float:
        """Return the share that a replica should have: as it is asked, and of what is left, alike."""
        count = len(self._heard)
        total = sum(part.demand for part in account.parts.values())
        whole = max(total, limits.rate_per_s or 0.0, 1e-9)
        weight = (account.parts[replica].demand + (whole - total) / count) / whole
        return (1 - _FLOOR) * weight + _FLOOR / count

    def _tokens(self, account: _Account, part: _KeyPart, told: KeyReport, limits: KeyLimits) -> float:
        """Return the tokens that move: what its part has no room for, or what the pool has for its room."""
        if limits.rate_per_s is None:
            return 0.0
        held = sum(max(0.0, each.level) for each in account.parts.values())  # as they last said
        account.pool = min(account.pool + told.spill, max(0.0, limits.tokens - held))
        level = told.level
        if part.is_late:  # a newcomer brings nothing: what the bucket held was handed out before it came
            level, part.is_late = min(told.level, 0.0), False
        moved = max(limits.tokens * part.share, 1.0) - level
        if moved > 0:
            moved = min(moved, account.pool)
        account.pool -= moved
        return moved - (told.level - level)

    def _caps(
        self, account: _Account, replica: str, told: KeyReport, limits: KeyLimits, weight: float
    ) -> tuple[float, float]:
        """Return what the replica may use of the day in all, requests and USD."""
        used_requests, used_usd = account.used(told.day)
        held_requests = held_usd = 0.0
        for name, part in account.parts.items():
            if name != replica and part.day == told.day:
                requests, usd = account.days[told.day].get(part.entry, (0, 0.0))
                held_requests += max(0.0, part.requests_cap - requests)
                held_usd += max(0.0, part.usd_cap - usd)
        own = account.parts[replica]
        first = min(
            (part for part in account.parts.values() if part.wanted_until > own.heard_at),
            key=lambda part: part.wanted_since,
            default=None,
        )
        wanted, wanted_usd = (0, 0.0) if first is None else (first.wanted, first.wanted_usd)
        requests_cap = usd_cap = inf
        if limits.requests_per_day is not None:
            left = max(0.0, limits.requests_per_day - used_requests)
            fair: float = ceil(left * weight)
            fair = max(fair, wanted) if first is own else min(fair, max(0.0, left - wanted))
            requests_cap = told.requests + min(fair, floor(max(0.0, left - held_requests)))
        if limits.usd_per_day is not None:
            left = max(0.0, limits.usd_per_day - used_usd)
            fair = left * weight
            fair = max(fair, wanted_usd) if first is own else min(fair, max(0.0, left - wanted_usd))
            usd_cap = told.usd + min(fair, max(0.0, left - held_usd))
        return requests_cap, usd_cap

    def _forget_gone(self, now: float) -> None:
        gone = [name for name, at in self._heard.items() if now - at > LEASE_S]
        for name in gone:
            del self._heard[name]
            for account in self._accounts.values():
                account.parts.pop(name, None)
