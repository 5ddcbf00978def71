"""The conversation of replicas with the ledger, and the journal that lets quotas outlive restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from contract.errors import NotReady
from serve.access.accounts import Accounts, limits_of
from serve.access.gate import Gate
from serve.access.ledger import Answer, Ledger, Report, Used
from serve.access.meter import DAY_S, day_name
from serve.storage.objects import Objects
from serve.storage.reach import Reach

log = logging.getLogger(__name__)

EXCHANGE_S = 0.2
WRITE_S = 0.5
Call = Callable[[Report], Awaitable[Answer]]
"""Asks the ledger. Raises NotReady when it does not answer."""


class Exchange:
    """A replica's side: tells what was used, five times a second while any key has limits.

    Args:
        accounts: of this replica.
        call: asks the ledger.
    """

    def __init__(self, accounts: Accounts, call: Call) -> None:
        self._accounts = accounts
        self._call = call
        self._one_at_a_time = asyncio.Lock()
        self._is_cut_off = False

    async def once(self) -> None:
        """Report and hold what is answered; without an answer go on with what is held."""
        if not self._accounts.limited:
            return
        async with self._one_at_a_time:
            report = self._accounts.report()
            try:
                self._accounts.grant(await self._call(report))
            except NotReady as problem:
                self._accounts.take_back()
                if not self._is_cut_off:
                    log.warning("limits go on as they were divided last: %s", problem)
                self._is_cut_off = True
            else:
                self._is_cut_off = False

    async def run(self) -> None:
        """Exchange for ever."""
        while True:
            await asyncio.sleep(EXCHANGE_S)
            await self.once()


class Journal:
    """What was used, a document a day of each writer in the state: `usage/2026-11-29/WRITER.json`.

    While one gateway takes the place of another, two write: neither loses what the other wrote.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._writer = secrets.token_hex(8)

    def read(self, day: int) -> dict[str, Used]:
        """Return what was used on a day, by key and replica; a broken document is empty. Raises OSError."""
        total: dict[str, Used] = {}
        for place in self._objects.keys(_folder(day)):
            for name, replicas in self._document(place).items():
                known = total.setdefault(name, {})
                for one, (requests, usd) in replicas.items():
                    before = known.get(one, (0, 0.0))  # each writer also tells what it read at its start
                    known[one] = max(before[0], requests), max(before[1], usd)
        return total

    def _document(self, place: str) -> dict[str, Used]:
        try:
            value = json.loads(self._objects.read(place))
            return {
                str(name): {str(one): (int(used[0]), float(used[1])) for one, used in replicas.items()}
                for name, replicas in value["keys"].items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            log.exception("the journal of what keys have used cannot be read; it begins anew")
            return {}

    def write(self, day: int, used: dict[str, Used]) -> None:
        """Write what was used on a day, complete or not at all. Raises OSError."""
        value: dict[str, Any] = {"day": day_name(day), "keys": used}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "usage.json"
            file.write_text(json.dumps(value))
            self._objects.put(f"{_folder(day)}/{self._writer}.json", file, private=True)


class Bank:
    """Control's side: the ledger, the limits that the keys state, and the journal.

    Args:
        gate: follows the keys.
        journal: where usage is kept.
    """

    def __init__(self, gate: Gate, journal: Journal) -> None:
        self._gate = gate
        self._journal = journal
        self._ledger: Ledger | None = None
        self._written: dict[int, dict[str, Used]] = {}
        self._opening = asyncio.Lock()
        self._reach = Reach(log, "the journal of what keys have used")

    async def exchange(self, report: Report) -> Answer:
        """Answer a replica."""
        ledger = await self._open()
        return ledger.exchange(report, limits_of(self._gate.book), time.monotonic())

    def totals(self) -> dict[str, tuple[int, float]]:
        """Return requests and USD of this day by key, as far as was told."""
        return {} if self._ledger is None else self._ledger.totals(_today())

    async def write(self) -> None:
        """Write what was used since it was written last. A state that cannot be reached is tried again."""
        if self._ledger is None:
            return
        for day in (_today() - 1, _today()):
            used = self._ledger.used(day)
            if used and used != self._written.get(day):
                try:
                    await asyncio.to_thread(self._journal.write, day, used)
                except OSError as problem:
                    self._reach.lost(problem)
                    return
                self._reach.found()
                self._written[day] = used

    async def keep(self) -> None:
        """Write twice a second, for ever."""
        while True:
            await asyncio.sleep(WRITE_S)
            await self.write()

    async def _open(self) -> Ledger:
        async with self._opening:
            if self._ledger is None:
                today = _today()
                try:
                    used = await asyncio.to_thread(self._journal.read, today)
                except OSError as problem:
                    raise NotReady("what keys have used so far cannot be read") from problem
                self._ledger = Ledger(time.monotonic(), {today: used})
                self._written = {today: used}
            return self._ledger


def _folder(day: int) -> str:
    return f"usage/{day_name(day)}"


def _today() -> int:
    return int(time.time() // DAY_S)
