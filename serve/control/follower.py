"""How a replica follows the live state: loads a revision beside the one in force, then flips."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from contract.errors import EnvironmentProblem, InputError, NotReady, PolicyError
from contract.files import sha256_of_json
from contract.live import Revision
from serve.control.revision_store import RevisionStore
from serve.storage.reach import Reach
from serve.types.clock import Clock
from serve.types.stage import Snapshot

log = logging.getLogger(__name__)

PULL_EVERY_S = 0.5
_KEPT_PREPARED = 4
_CANNOT_LOAD = (InputError, EnvironmentProblem)


class Follower:
    """The snapshot in force in one replica.

    A replica that knows of a newer revision and cannot load it has fallen behind: it is not ready, and gives
    no snapshot. One that cannot reach the state directory serves on: nothing newer is known.

    Args:
        state: where revisions come from.
        load: makes a snapshot, loading what it lacks beside what is there; raises InputError or
            EnvironmentProblem when the revision cannot be served here.
        flipped: told of the snapshot that has just gone out of force, and of the families that it needs.
        begun: told of each snapshot in the same step in which it comes into force.
        idle: called after every look at the state, to free what is not needed any more.
        prepared_s: how long what was prepared is kept for a commit.
        clock: seconds.
    """

    def __init__(
        self,
        state: RevisionStore,
        load: Callable[[Revision], Awaitable[Snapshot]],
        flipped: Callable[[Snapshot, frozenset[str]], None] = lambda *_: None,
        begun: Callable[[Snapshot], None] = lambda _: None,
        *,
        idle: Callable[[], None] = lambda: None,
        prepared_s: float = math.inf,
        clock: Clock = time.monotonic,
    ) -> None:
        self._state = state
        self._load = load
        self._flipped = flipped
        self._begun = begun
        self._current: Snapshot | None = None
        self._in_force: Revision | None = None
        self._idle = idle
        self._prepared_s = prepared_s
        self._clock = clock
        self._prepared: dict[str, tuple[Revision, Snapshot, float]] = {}
        self._forgotten = 0
        self._loading: list[Revision] = []
        self._problem: str | None = None
        self._reach = Reach(log, "the store of revisions")

    @property
    def problem(self) -> str | None:
        """Why this replica has fallen behind, if it has."""
        return self._problem

    @property
    def revision(self) -> int:
        """Number of the revision in force; 0 before the first."""
        return self._current.revision if self._current else 0

    @property
    def families(self) -> frozenset[str]:
        """Hashes of the families that are needed by what is in force, prepared, or being loaded."""
        held = [revision for revision, _, _ in self._prepared.values()] + self._loading
        if self._in_force is not None:
            held.append(self._in_force)
        return frozenset[str]().union(*map(_families_of, held))

    def snapshot(self) -> Snapshot:
        """Return the snapshot in force. Raises NotReady before the first, and when fallen behind."""
        if self._current is None:
            raise NotReady("no policy is loaded yet")
        if self._problem is not None:
            raise NotReady("this replica could not load the newest revision")
        return self._current

    async def prepare(self, revision: Revision) -> None:
        """Load a revision that is not committed yet, so that the flip costs nothing; raises as `load`."""
        asked_at = self._forgotten
        snapshot = await self._loaded(revision)
        if self._forgotten != asked_at:
            raise PolicyError("it was called off while it loaded", hint="push again")
        self._prepared[_key(revision)] = revision, snapshot, self._clock() + self._prepared_s
        while len(self._prepared) > _KEPT_PREPARED:
            self._prepared.pop(next(iter(self._prepared)))

    def forget_prepared(self) -> None:
        """Let go of what was prepared, or is being loaded for it: it will not be committed."""
        self._forgotten += 1
        self._prepared.clear()

    async def catch_up(self) -> int:
        """Put the newest committed revision in force; return the number that is in force then."""
        try:
            newer = await asyncio.to_thread(self._state.newer_than, self.revision)
        except InputError as problem:
            self._fall_behind(problem)
            return self.revision
        except OSError as problem:
            self._reach.lost(problem)
            return self.revision
        self._reach.found()
        if newer is not None:
            await self._flip(newer)
        else:
            self._problem = None
        return self.revision

    async def follow(self) -> None:
        """Catch up twice a second, for ever, and let go of what was prepared and never committed."""
        while True:
            await asyncio.sleep(PULL_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Catch up, then let go of what was prepared too long ago."""
        await self.catch_up()
        self.expire()

    def expire(self) -> None:
        """Let go of what was prepared too long ago."""
        now = self._clock()
        self._prepared = {key: found for key, found in self._prepared.items() if found[2] > now}
        self._idle()

    async def _flip(self, revision: Revision) -> None:
        prepared = self._prepared.get(_key(revision))
        try:
            snapshot = prepared[1] if prepared else await self._loaded(revision)
        except _CANNOT_LOAD as problem:
            self._fall_behind(problem)
            return
        if revision.number <= self.revision:  # another flip was first while this one loaded
            return
        before, needed = self._current, self._in_force
        self._current, self._in_force = snapshot, revision
        self._begun(snapshot)
        self._problem = None
        self._prepared.clear()
        log.info("revision %s is in force: %s", revision.number, revision.reason)
        if before is not None and needed is not None:
            self._flipped(before, _families_of(needed))

    async def _loaded(self, revision: Revision) -> Snapshot:
        self._loading.append(revision)
        try:
            return await self._load(revision)
        finally:
            self._loading.remove(revision)

    def _fall_behind(self, problem: Exception) -> None:
        if self._problem is None:
            log.error("cannot follow the live state: %s", problem)
        self._problem = str(problem)


def _key(revision: Revision) -> str:
    return sha256_of_json(revision.dump())


def _families_of(revision: Revision) -> frozenset[str]:
    return frozenset(family.sha256 for family in revision.families)
