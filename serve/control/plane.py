"""Control: checks a policy, has every replica prepare it, commits a revision, tells them. No Ray in here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from contract.errors import NotReady, PolicyError
from contract.family import Family
from contract.live import Revision
from contract.policy import check_policy_fits, parse_policy, require_certified_answers
from serve.control.revision_store import RevisionStore, RevisionTaken, following

log = logging.getLogger(__name__)

_TRIES = 3


@dataclass(frozen=True)
class ReplicaState:
    """What one gateway replica says of itself: where it is, and why it is behind, if it is."""

    replica: str
    pid: int
    revision: int
    problem: str | None


Change = Callable[[Revision], Revision]
Committed = tuple[Revision, list[ReplicaState]]


class Replicas(Protocol):
    """All gateway replicas at once."""

    async def prepare(self, revision: dict[str, Any]) -> list[str | None]:
        """Have each load a revision that is not committed; one complaint or None per replica."""
        ...

    async def catch_up(self) -> list[ReplicaState]:
        """Have each put the newest committed revision in force and say where it is.

        Leaves out those that do not answer. Raises NotReady when none does.
        """
        ...


class ControlPlane:
    """The only writer of a run's live state.

    Args:
        state: where revisions are committed.
        family: what is served; a policy must fit it.
        replicas: the gateway's.
        otherwise: what is other about the answers of variants here; no certificate over them is served.
    """

    def __init__(
        self,
        state: RevisionStore,
        family: Family,
        replicas: Replicas,
        otherwise: Mapping[str, str] | None = None,
    ) -> None:
        self._state = state
        self._otherwise = otherwise or {}
        self._family = family
        self._replicas = replicas
        self._one_at_a_time = asyncio.Lock()

    def current(self) -> Revision:
        """Return the revision in force. Raises PolicyError when there is none."""
        latest = self._state.latest()
        if latest is None:
            raise PolicyError("no policy is in force", hint="sluice policy push POLICY")
        return latest

    def history(self) -> list[Revision]:
        """Return all revisions, oldest first."""
        return self._state.history()

    async def push(self, raw: Any, reason: str = "push") -> Committed:
        """Put a policy (its JSON form) in force, as `commit` does. Raises PolicyError."""
        policy = parse_policy(raw)
        return await self.commit(lambda now: now.serving(policy), reason)

    async def rollback(self, number: int) -> Committed:
        """Put policy and family of an earlier revision in force again, as a new revision. Raises PolicyError.

        Nothing else of that revision comes back: a key that was revoked since stays revoked.
        """
        then = self._state.read(number)
        return await self.commit(lambda now: now.serving(then.policy, then.family), f"rollback to {number}")

    async def commit(self, change: Change, reason: str) -> Committed:
        """Commit the revision in force, changed; return it and where each replica is then.

        One after the other: `change` is given what is in force when its turn has come, and is asked again
        when another writer was first. A replica that does not answer after the commit is left out: it
        catches up by itself.

        Args:
            change: returns what is to be in force. Number, time and reason are set here, whatever it says.
            reason: for the history.

        Raises:
            PolicyError: the policy does not fit the family, or a replica could not prepare it; then nothing
                has changed.
        """
        async with self._one_at_a_time:
            for _ in range(_TRIES):
                latest = self.current()
                revision = following(latest, change(latest), reason)
                self._check(revision)
                complaints = [text for text in await self._replicas.prepare(revision.dump()) if text]
                if complaints:
                    raise PolicyError(
                        f"{len(complaints)} replica(s) cannot load it, nothing has changed: {complaints[0]}"
                    )
                try:
                    self._state.commit(revision)
                except RevisionTaken:
                    continue
                return revision, await self._those_that_answer()
            raise PolicyError("other writers keep committing revisions", hint="push again")

    async def states(self) -> list[ReplicaState]:
        """Return where each replica is."""
        return await self._replicas.catch_up()

    def _check(self, revision: Revision) -> None:
        if revision.family_sha256 != self._family.sha256:
            raise PolicyError(
                f"it is for another family ({revision.family_sha256[:12]}…) than is served",
                hint="start the gateway with that family",
            )
        check_policy_fits(revision.policy, self._family)
        require_certified_answers(revision.policy, self._otherwise)

    async def _those_that_answer(self) -> list[ReplicaState]:
        """Return where the replicas are; what is committed stays so, even when none of them answers."""
        try:
            return await self._replicas.catch_up()
        except NotReady:
            log.exception("no replica says that it follows the revision just committed")
            return []
