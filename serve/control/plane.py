"""Control: checks a policy, has every replica prepare it, commits a revision, tells them. No Ray in here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from contract.errors import NotReady, PolicyError
from contract.family import Family
from contract.live import FamilyReference, Revision
from contract.policy import Policy, check_policy_fits, parse_policy, require_certified_answers
from serve.control.revision_store import RevisionStore, RevisionTaken, following

log = logging.getLogger(__name__)

_TRIES = 3


@dataclass(frozen=True)
class ReplicaState:
    """What one gateway replica says of itself: where it is, why it is behind, if it is, and its gear."""

    replica: str
    pid: int
    revision: int
    problem: str | None
    gear: str = ""


@dataclass(frozen=True)
class Examined:
    """A family that may be served, and what is other about the answers of its variants on this machine."""

    family: Family
    otherwise: Mapping[str, str]


Examine = Callable[[FamilyReference], Examined]
Change = Callable[[Revision], Revision]
Rule = Callable[[Revision, Revision], Revision]
"""Gives a changed revision what is to be said of the trials that the change ends, given the one before."""
Committed = tuple[Revision, list[ReplicaState]]


class Replicas(Protocol):
    """All gateway replicas at once."""

    async def prepare(self, revision: dict[str, Any], *, stages: bool) -> list[str | None]:
        """Have each load a revision that is not committed; one complaint or None per replica.

        Args:
            revision: its JSON form.
            stages: the stages behind handles first, because families come or go. Raises NotReady when one
                of those asked does not answer.
        """
        ...

    async def forget(self) -> None:
        """Have each let go of what was prepared and will not be committed. Never raises."""
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
        examine: looks at a family before it is served, in a thread; a policy must fit what it returns.
        replicas: the gateway's.
        check_room: raises EnvironmentProblem where there is no memory for what a revision needs beside the
            one in force, both given; asked in a thread, for one commit after the other.
        check_signed: raises PolicyError for a policy that nobody vouches for who would have to.
    """

    def __init__(
        self,
        state: RevisionStore,
        examine: Examine,
        replicas: Replicas,
        check_room: Callable[[Revision, Revision], None] = lambda *_: None,
        check_signed: Callable[[Policy], None] = lambda _: None,
    ) -> None:
        self._state = state
        self._examine = examine
        self._replicas = replicas
        self._check_room = check_room
        self.check_signed = check_signed
        self._one_at_a_time = asyncio.Lock()
        self._rule: Rule = lambda _, changed: changed

    def current(self) -> Revision:
        """Return the revision in force, in a thread where the state may be slow to answer.

        Raises:
            PolicyError: there is none.
            OSError: the state cannot be asked.
        """
        latest = self._state.latest()
        if latest is None:
            raise PolicyError("no policy is in force", hint="sluice policy push POLICY")
        return latest

    def rule_by(self, rule: Rule) -> None:
        """Have every commit say by `rule` how the trials stood that it ends."""
        self._rule = rule

    def newest(self, known: Revision | None) -> Revision:
        """Return the revision in force, for one look where `known` still is. Raises PolicyError."""
        if known is None:
            return self.current()
        return self._state.newer_than(known.number) or known

    def history(self) -> list[Revision]:
        """Return all revisions, oldest first."""
        return self._state.history()

    async def push(self, raw: Any, reason: str = "push") -> Committed:
        """Put a policy (its JSON form) in force, as `commit` does. Raises PolicyError."""
        policy = parse_policy(raw)
        return await self.commit(lambda now: now.serving(policy), reason)

    async def shift(self, gear: str | None) -> Committed:
        """Fix the gear of the policy in force, or leave it to load (None), as `commit` does.

        Raises PolicyError.
        """
        return await self.commit(lambda now: now.in_gear(gear), f"gear {gear or 'auto'}")

    async def rollback(self, number: int) -> Committed:
        """Put policy and family of an earlier revision in force again, as a new revision. Raises PolicyError.

        Nothing else of that revision comes back: a key that was revoked since stays revoked.
        """
        then = await asyncio.to_thread(self._state.read, number)
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
            PolicyError: the policy does not fit the family, or a replica could not prepare it.
            FamilyError, EnvironmentProblem: a family cannot be served here.
            NotReady: a replica does not answer.
            OSError: the state cannot be written. After any of them nothing has changed.
        """
        async with self._one_at_a_time:
            for _ in range(_TRIES):
                latest = await asyncio.to_thread(self.current)
                revision = following(latest, self._rule(latest, change(latest)), reason)
                await self._check(revision)
                await asyncio.to_thread(self._check_room, latest, revision)
                try:
                    await self._prepare(revision, stages=set(revision.families) != set(latest.families))
                    revision = await asyncio.to_thread(self._state.commit, revision)
                except RevisionTaken:
                    await self._replicas.forget()
                    continue
                except BaseException:
                    await self._replicas.forget()
                    raise
                return revision, await self._those_that_answer()
            raise PolicyError("other writers keep committing revisions", hint="push again")

    async def states(self) -> list[ReplicaState]:
        """Return where each replica is."""
        return await self._replicas.catch_up()

    async def _check(self, revision: Revision) -> None:
        pairs = [(revision.policy, revision.family)]
        pairs += [(candidate.policy, candidate.family) for _, candidate in revision.trials()]
        for policy, reference in pairs:
            self.check_signed(policy)
            found = await asyncio.to_thread(self._examine, reference)
            check_policy_fits(policy, found.family)
            require_certified_answers(policy, found.otherwise)

    async def _prepare(self, revision: Revision, *, stages: bool) -> None:
        complaints = [c for c in await self._replicas.prepare(revision.dump(), stages=stages) if c]
        if complaints:
            raise PolicyError(
                f"{len(complaints)} replica(s) cannot load it, nothing has changed: {complaints[0]}"
            )

    async def _those_that_answer(self) -> list[ReplicaState]:
        """Return where the replicas are; what is committed stays so, even when none of them answers."""
        try:
            return await self._replicas.catch_up()
        except NotReady:
            log.exception("no replica says that it follows the revision just committed")
            return []
