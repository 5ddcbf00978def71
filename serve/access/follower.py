"""How a process follows the keys: the newest book into the gate, or the gate shut."""

from __future__ import annotations

import asyncio
import logging

from contract.errors import InputError
from serve.access.gate import Gate
from serve.access.key_store import KeyStore
from serve.access.keys import KeyBook
from serve.storage.reach import Reach

log = logging.getLogger(__name__)

PULL_EVERY_S = 0.5


class KeyFollower:
    """Keeps a gate at the newest book; shuts it until it has seen whether there is one.

    A book that is there and cannot be read shuts the gate, and so does a state that may not be read: it may
    revoke a key. A state that cannot be reached any more does not: nothing newer is known.
    """

    def __init__(self, store: KeyStore, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self._is_shut = False
        self._has_looked = False
        self._reach = Reach(log, "the store of keys")
        gate.shut()

    async def catch_up(self) -> bool:
        """Put the newest book in force; return whether there was a newer one."""
        newer = None
        try:
            newer = await asyncio.to_thread(self._store.newer_than, self._gate.number)
            self._reach.found()
            self._take(newer)
        except (InputError, PermissionError) as problem:
            self._shut(problem)
        except OSError as problem:
            self._reach.lost(problem)
        except Exception as problem:
            if not self._is_shut:
                log.exception("the keys cannot be followed")
            self._shut(problem)
        return newer is not None

    def _take(self, newer: KeyBook | None) -> None:
        if newer is not None:
            self._gate.take(newer)
            log.info("keys number %s are in force: %s", newer.number, newer.reason)
        elif not self._has_looked:
            self._gate.open_without_keys()
        elif self._is_shut and self._gate.book is not None:
            self._gate.take(self._gate.book)
            log.warning("keys number %s are in force again: there is no newer book", self._gate.number)
        self._is_shut, self._has_looked = False, True

    def _shut(self, problem: Exception) -> None:
        if not self._is_shut:
            log.error("the keys cannot be read, so nobody is let in: %s", problem)
        self._is_shut = self._has_looked = True
        self._gate.shut()

    async def follow(self) -> None:
        """Catch up twice a second, for ever."""
        while True:
            await asyncio.sleep(PULL_EVERY_S)
            await self.catch_up()
