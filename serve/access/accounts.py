"""The meters of one process, by key: what requests are let in by, and what the ledger is told."""

from __future__ import annotations

import time
from collections.abc import Mapping

from serve.access.keys import KeyBook, KeyLimits
from serve.access.ledger import Answer, Report
from serve.access.meter import KeyReport, Meter, Visit
from serve.types.clock import Clock
from serve.types.recorder import RequestRecord


class Accounts:
    """A meter for each name that has limits; two keys of one name, as in a rotation, share it.

    Args:
        replica: how this process calls itself.
        replicas: how many share the limits, as far as is known.
        clock: of time that only grows.
        wall: for days.
    """

    def __init__(
        self, replica: str, replicas: int, *, clock: Clock = time.monotonic, wall: Clock = time.time
    ) -> None:
        self._replica = replica
        self._replicas = max(1, replicas)
        self._clock = clock
        self._wall = wall
        self._meters: dict[str, Meter] = {}
        self._told: Mapping[str, KeyReport] = {}

    @property
    def limited(self) -> bool:
        """Whether any key has limits."""
        return bool(self._meters)

    def take(self, book: KeyBook) -> None:
        """Follow a newer book; what was used by a name that stays is kept."""
        limits = limits_of(book)
        kept = {name: meter for name, meter in self._meters.items() if name in limits}
        for name, limit in limits.items():
            if name in kept:
                kept[name].limits = limit
            else:
                kept[name] = Meter(limit, self._replicas, self._clock(), self._wall())
        self._meters = kept

    def meter(self, name: str) -> Meter | None:
        """Return the meter of a name; None where nothing is limited."""
        return self._meters.get(name)

    def admit(self, meter: Meter, texts: int, usd: float = 0.0) -> Visit:
        """Take the part of a request; its end is to be told to what is returned. Raises LimitReached.

        Args:
            meter: of the key.
            texts: of the request.
            usd: what it costs at the most, for a meter that is `in_usd`: held back until its end.
        """
        meter.admit(texts, usd, self._clock(), self._wall())
        return Visit(meter, texts, usd)

    def charge(self, record: RequestRecord) -> None:
        """Book what an answered request cost."""
        meter = self._meters.get(record.caller)
        if meter is not None and record.prices is not None:
            meter.charge(sum(record.prices.charges(record.runs()).values()))

    def report(self) -> Report:
        """Return what the ledger is to be told; follow it with `grant` or `take_back`."""
        now, wall = self._clock(), self._wall()
        self._told = {name: meter.report(now, wall) for name, meter in self._meters.items()}
        return Report(self._replica, self._told)

    def grant(self, answer: Answer) -> None:
        """Hold what the ledger answered."""
        self._replicas = answer.replicas
        now = self._clock()
        for name, granted in answer.keys.items():
            meter = self._meters.get(name)
            if meter is not None:
                meter.grant(granted, now)

    def take_back(self) -> None:
        """Count on where the ledger did not hear the last report."""
        for name, told in self._told.items():
            meter = self._meters.get(name)
            if meter is not None:
                meter.take_back(told)


def limits_of(book: KeyBook | None) -> dict[str, KeyLimits]:
    """Return the limits of each name that has some, by its newest key that is not revoked."""
    found = {key.name: key.limits for key in (book.keys if book else ()) if key.revoked_at is None}
    return {name: limits for name, limits in found.items() if limits.some}
