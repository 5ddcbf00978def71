"""Which families a gateway serves, changed while it serves: loaded beside the others, or unloaded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import EnvironmentProblem, FamilyError, InputError, NotReady, PolicyError
from contract.family import Family, read_family
from contract.live import FamilyReference, Revision
from contract.policy import check_policy_fits, parse_policy, single_variant_policy
from contract.roster import OF, Roster, Seat, check_served_name, served_name
from serve.control.family_line import FamilyLine
from serve.control.family_push import check_answers
from serve.control.family_store import FamilyStore
from serve.control.plane import ReplicaState
from serve.control.revision_store import first_revision, following
from serve.control.roster_start import last_place
from serve.control.roster_store import RosterStore, RosterTaken, next_roster

log = logging.getLogger(__name__)

_TRIES = 3


@dataclass(frozen=True)
class Loaded:
    """A family that has come.

    Attributes:
        name: that it is served under.
        revision: in force for it.
        replicas: where each is then.
        placed: `inline` or a deployment, by variant.
        said: what was seen on the way, in words.
    """

    name: str
    revision: Revision
    replicas: list[ReplicaState]
    placed: dict[str, str]
    said: tuple[str, ...]


class RosterControl:
    """The only writer of a run's rosters, and what control does for each family on them.

    Args:
        rosters: where they are.
        store: keeps families.
        make_line: gives what control does for a family.
        may_be_empty: whether the last family may be unloaded too.
        watch_every_s: how often the trials of each family are looked after.
    """

    def __init__(
        self,
        rosters: RosterStore,
        store: FamilyStore,
        make_line: Callable[[Seat], FamilyLine],
        *,
        may_be_empty: bool = False,
        watch_every_s: float = 1.0,
    ) -> None:
        self._rosters = rosters
        self._store = store
        self._make_line = make_line
        self._may_be_empty = may_be_empty
        self._watch_every_s = watch_every_s
        self._lines: dict[str, FamilyLine] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Take over the families in force."""
        roster = await asyncio.to_thread(self.current)
        for seat in roster.seats:
            self._add(await asyncio.to_thread(self._make_line, seat))

    @property
    def lines(self) -> dict[str, FamilyLine]:
        """What control does for each family, by the name that it is served under."""
        return dict(self._lines)

    def line(self, name: str | None) -> FamilyLine:
        """Return what control does for a family. Raises PolicyError for none, and for no name of several."""
        if name is None and len(self._lines) == 1:
            return next(iter(self._lines.values()))
        served = ", ".join(self._lines) or "none"
        if name is None:
            raise PolicyError(f"several families are served, or none: {served}", hint="--family NAME")
        if name not in self._lines:
            raise PolicyError(f"no family is served as {name[:80]!r}; there are: {served}")
        return self._lines[name]

    def current(self) -> Roster:
        """Return the roster in force, in a thread. Raises PolicyError where there is none, and OSError."""
        roster = self._rosters.latest()
        if roster is None:
            raise PolicyError("there is no roster in the state directory", hint="start the gateway again")
        return roster

    def history(self) -> list[Roster]:
        """Return all rosters, oldest first."""
        return self._rosters.history()

    async def load(
        self, folder: Path, name: str | None = None, raw_policy: Any = None, reason: str = "family load"
    ) -> Loaded:
        """Serve one more family, loaded everywhere before anybody is told; after any error all is as it was.

        Args:
            folder: on this node; what is served is the copy that is kept of it.
            name: to serve it under; None: the one in its manifest.
            raw_policy: JSON form of its policy; None: its reference alone.
            reason: for the history.

        Raises:
            FamilyError: a broken rule, a wrong hash, other answers than were measured.
            PolicyError: that name is known to clients already, the policy does not fit, or a replica cannot
                load it.
            EnvironmentProblem: memory, a library or a provider is missing.
            NotReady: a replica does not answer.
        """
        async with self._one_at_a_time:
            name = await asyncio.to_thread(_name_of, folder, name)
            roster = await self._follow()
            if name in self._lines:
                raise PolicyError(
                    f"a family is served as {name} already",
                    hint=f"sluice family push {folder} --family {name} takes its place",
                )
            line = await asyncio.to_thread(self._line_for, name, roster)
            said: list[str] = []
            family, revision = await asyncio.to_thread(self._first, line, folder, raw_policy, reason, said)
            said += await asyncio.to_thread(self._beside, name, family, roster)
            try:
                complaints = [c for c in await line.replicas.prepare(revision.dump(), stages=True) if c]
                if complaints:
                    raise PolicyError(f"{len(complaints)} replica(s) cannot load it: {complaints[0]}")
                await asyncio.to_thread(line.revisions.commit, revision)
                await self._commit(lambda now: _with(now, line.seat), f"load {name}: {reason}")
            except BaseException:
                await line.replicas.forget()
                raise
            self._add(line)
        return Loaded(name, revision, await _states(line), line.families.place(family), tuple(said))

    async def unload(self, name: str, reason: str = "family unload") -> list[ReplicaState]:
        """Serve a family no longer: those of its requests that are inside are answered, then it is freed.

        Raises:
            PolicyError: it is not served, or the only one.
        """
        async with self._one_at_a_time:
            await self._follow()
            line = self.line(name)
            if len(self._lines) == 1 and not self._may_be_empty:
                raise PolicyError(f"{name} is the only family that is served", hint="load another one first")
            await self._commit(lambda roster: roster.without(name), f"unload {name}: {reason}")
            self._drop(name)
        return await _states(line)

    async def _follow(self) -> Roster:
        """Have a line for each family in force and no other: a commit may count whose answer was lost."""
        roster = await asyncio.to_thread(self.current)
        for name, line in self.lines.items():
            if line.seat not in roster.seats:
                self._drop(name)
        for seat in roster.seats:
            if seat.name not in self._lines:
                self._add(await asyncio.to_thread(self._make_line, seat))
        return roster

    def _line_for(self, name: str, roster: Roster) -> FamilyLine:
        taken = {seat.place for seat in roster.seats}
        place = last_place(self._rosters.history(), name, taken, OF + name)
        return self._make_line(Seat(name=name, place=place))

    def _first(
        self, line: FamilyLine, folder: Path, raw_policy: Any, reason: str, said: list[str]
    ) -> tuple[Family, Revision]:
        """Look at a family, keep it, and return it with the revision that it begins with."""
        found = line.families.examine_folder(folder, said.append)
        family = found.family
        policy = single_variant_policy(family.teacher) if raw_policy is None else parse_policy(raw_policy)
        check_policy_fits(policy, family)
        line.plane.check_signed(policy)
        check_answers(folder, found)
        line.families.check_alone(family)
        reference: FamilyReference = self._store.put(folder, family)
        latest = line.revisions.latest()
        if latest is None:
            return family, first_revision(policy, reference, reason).model_copy(update={"seed": False})
        return family, following(latest, latest.serving(policy, reference), reason)

    def _beside(self, name: str, family: Family, roster: Roster) -> list[str]:
        """Say what a family has in common with those that are served.

        Raises PolicyError where clients would get another's answers by a name that they know.
        """
        there: dict[str, Family] = {}
        for other, line in self.lines.items():
            with suppress(InputError, EnvironmentProblem, OSError):  # of one that is lost nothing is known
                there[other] = line.families.examine(line.plane.current().family).family
        plain = _asked_by_short_names(roster)
        if plain in there and name in there[plain].names:
            raise PolicyError(f"clients of {plain} know one of its variants as {name}", hint="--as NAME")
        if plain == name:
            _check_variants(name, family, roster)
        alike = [other for other, known in there.items() if set(known.labels) == set(family.labels)]
        return [
            f"{other} has the same labels: a decision without a model goes to the first" for other in alike
        ]

    def _check_pushed(self, name: str, family: Family) -> None:
        roster = self.current()
        if _asked_by_short_names(roster) == name:
            _check_variants(name, family, roster)

    async def _commit(self, change: Callable[[Roster], Roster], reason: str) -> None:
        for _ in range(_TRIES):
            latest = await asyncio.to_thread(self.current)
            changed = change(latest).model_copy(update={"seed": False})
            if changed.seats == latest.seats:
                return
            try:
                await asyncio.to_thread(self._rosters.commit, next_roster(latest, changed, reason))
            except RosterTaken:
                continue
            return
        raise PolicyError("other writers keep committing rosters", hint="try again")

    def _add(self, line: FamilyLine) -> None:
        self._lines[line.name] = line
        line.push.check_by(lambda family: self._check_pushed(line.name, family))
        self._watching[line.name] = asyncio.create_task(line.trials.watch(self._watch_every_s))

    def _drop(self, name: str) -> None:
        del self._lines[name]
        self._watching.pop(name).cancel()


async def _states(line: FamilyLine) -> list[ReplicaState]:
    """Tell every replica; return where they are. What is committed stays so, even when none answers."""
    try:
        return await line.replicas.catch_up()
    except NotReady:
        log.exception("no replica says that it follows the roster just committed")
        return []


def _asked_by_short_names(roster: Roster) -> str | None:
    return roster.names[0] if roster.plain is None and len(roster.seats) == 1 else roster.plain


def _check_variants(name: str, family: Family, roster: Roster) -> None:
    """Raise PolicyError where another family is served by the name of one of its variants."""
    if taken := [other for other in roster.names if other != name and other in family.names]:
        raise PolicyError(
            f"{taken[0]} is a variant of it, asked by that name, and another family is served so",
            hint="sluice family load FAMILY --as NAME serves that one under another name",
        )


def _with(roster: Roster, seat: Seat) -> Roster:
    """Return a roster with that family, which it may have: from a try whose answer was lost."""
    return roster if seat in roster.seats else roster.with_seat(seat)


def _name_of(folder: Path, name: str | None) -> str:
    """Return the name to serve a family under. Raises FamilyError."""
    name = served_name(read_family(folder, verify=False).name) if name is None else name
    try:
        return check_served_name(name)
    except ValueError as problem:
        raise FamilyError(str(problem), where=folder, hint="--as NAME") from None
