"""How a replica follows the live state: loads a revision beside the one in force, then flips."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from contract.errors import InputError, NotReady
from contract.files import sha256_of_json
from contract.live import Revision
from serve.control.revision_store import RevisionStore
from serve.types.stage import Snapshot

log = logging.getLogger(__name__)

PULL_EVERY_S = 0.5
_KEPT_PREPARED = 4


class Follower:
    """The snapshot in force in one replica.

    A replica that knows of a newer revision and cannot load it has fallen behind: it is not ready, and gives
    no snapshot. One that cannot reach the state directory serves on: nothing newer is known.

    Args:
        state: where revisions come from.
        load: makes a snapshot; raises InputError when the revision does not fit what this replica has loaded.
    """

    def __init__(self, state: RevisionStore, load: Callable[[Revision], Snapshot]) -> None:
        self._state = state
        self._load = load
        self._current: Snapshot | None = None
        self._prepared: dict[str, Snapshot] = {}
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why this replica has fallen behind, if it has."""
        return self._problem

    @property
    def revision(self) -> int:
        """Number of the revision in force; 0 before the first."""
        return self._current.revision if self._current else 0

    def snapshot(self) -> Snapshot:
        """Return the snapshot in force. Raises NotReady before the first, and when fallen behind."""
        if self._current is None:
            raise NotReady("no policy is loaded yet")
        if self._problem is not None:
            raise NotReady("this replica could not load the newest revision")
        return self._current

    def prepare(self, revision: Revision) -> None:
        """Load a revision that is not committed yet, so that the flip costs nothing. Raises InputError."""
        snapshot = self._load(revision)
        self._prepared[_key(revision)] = snapshot
        while len(self._prepared) > _KEPT_PREPARED:
            self._prepared.pop(next(iter(self._prepared)))

    async def catch_up(self) -> int:
        """Put the newest committed revision in force; return the number that is in force then."""
        try:
            newer = await asyncio.to_thread(self._state.newer_than, self.revision)
        except InputError as problem:
            self._fall_behind(problem)
            return self.revision
        except OSError:
            log.exception("the state directory cannot be reached")
            return self.revision
        if newer is not None:
            self._flip(newer)
        else:
            self._problem = None
        return self.revision

    async def follow(self) -> None:
        """Catch up twice a second, for ever."""
        while True:
            await asyncio.sleep(PULL_EVERY_S)
            await self.catch_up()

    def _flip(self, revision: Revision) -> None:
        if self._current is not None and revision.number <= self._current.revision:
            return
        try:
            snapshot = self._prepared.pop(_key(revision), None) or self._load(revision)
        except InputError as problem:
            self._fall_behind(problem)
            return
        self._current = snapshot
        self._problem = None
        self._prepared.clear()
        log.info("revision %s is in force: %s", revision.number, revision.reason)

    def _fall_behind(self, problem: Exception) -> None:
        if self._problem is None:
            log.error("cannot follow the live state: %s", problem)
        self._problem = str(problem)


def _key(revision: Revision) -> str:
    return sha256_of_json(revision.dump())
