"""From settings to what every process is told: families, policies, machine checked, the live state seeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from contract.errors import EnvironmentProblem, FamilyError, InputError
from contract.family import Family, read_family
from contract.live import SEED_FOR_ANOTHER, FamilyReference, Revision
from contract.policy import (
    Policy,
    Stage,
    check_policy_fits,
    read_policy,
    require_certified_answers,
    single_variant_policy,
)
from contract.roster import Seat, served_name
from runtime.fake_family import TEACHER, write_fake_family
from runtime.load import check_family_runs
from serve.access.signatures import Signers
from serve.control.family_store import FamilyStore, FamilyUnreachable, open_family_store
from serve.control.machine_check import compare_answers
from serve.control.revision_store import RevisionStore, first_revision, following, open_revisions
from serve.control.roster_start import seats_of
from serve.control.roster_store import RosterStore, next_roster
from serve.settings.gateway import FamilySettings, Settings
from serve.settings.slots import Slots, slots_of, union_of, without_effect
from serve.settings.stages import FakeSettings
from serve.stages.loading import Assignment, Started, package_folder
from serve.telemetry.tracing import check_can_trace

Progress = Callable[[str], None]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Asked:
    """A family that the settings name, and the policy that it is to start with."""

    folder: Path
    family: Family
    policy: Policy


def assign(
    settings: Settings, folder: Path, progress: Progress = lambda _: None, *, share: bool = False
) -> Assignment:
    """Check families, policies and machine; seed the live state; return what every process is told.

    Args:
        settings: of the gateway.
        folder: holds the state where the settings name none, and the fake family.
        progress: told what people should know.
        share: keep the families with the state, for nodes that have not their folders.

    Raises:
        InputError, EnvironmentProblem: as `start`.
    """
    check_can_trace(settings.traces)
    asked = _read(settings, folder)
    state = settings.state or str(folder / "state")
    rosters = RosterStore(state)
    hashes = {name: one.family.sha256 for name, one in asked.items()}
    roster, is_new = _asking(state, lambda: seats_of(rosters, open_revisions(state), hashes, progress))
    cache = None if settings.family_cache is None else Path(settings.family_cache)
    start = _Start(settings, state, open_family_store(state, cache), progress, share=share)
    found = {seat.name: start.seat(seat, asked.get(seat.name)) for seat in roster.seats}
    started = {name: one for name, one in found.items() if one is not None}
    if len(started) < len(found):
        left = roster
        for name in found.keys() - started.keys():
            left = left.without(name)
        roster, is_new = next_roster(roster, left, "what was loaded cannot start"), True
    if is_new:
        _asking(state, lambda: rosters.commit(roster))
    for words in without_effect(settings, union_of(one.slots for one in started.values())):
        progress(words)
    return Assignment(settings=settings, families=started, state=state, package=package_folder())


class _Start:
    """Puts one family after the other in force, as the settings or the live state have it."""

    def __init__(
        self, settings: Settings, state: str, store: FamilyStore, progress: Progress, *, share: bool
    ) -> None:
        self._settings = settings
        self._state = state
        self._store = store
        self._progress = progress
        self._share = share
        self._signers = Signers(settings.access.policy_keys)

    def seat(self, seat: Seat, asked: _Asked | None) -> Started | None:
        """Return how a family starts; None, and say so, where it is lost.

        None too where it cannot run and this start does not name it. Raises as `assign`.
        """
        revisions = open_revisions(self._state, seat.place)
        pushed = self._ask(
            revisions.latest if asked is None else lambda: _pushed_since(revisions, asked.family)
        )
        found = None if pushed is None else self._find(pushed, seat, lost_is_replaced=asked is not None)
        if pushed is not None and found is not None:
            folder, family = found
            policy = pushed.policy
            if asked is not None:
                self._progress(
                    f"the state directory's revision {pushed.number} stays in force, with the family "
                    f"{family.name} {family.sha256[:12]} that was put in force while the gateway served; "
                    "sluice family rollback goes back"
                )
        elif asked is not None:
            folder, family, policy = asked.folder, asked.family, asked.policy
        else:
            return None
        settings, progress = self._settings, self._progress
        try:
            check_family_runs(family, settings.provider)
            otherwise = compare_answers(folder, family, settings, progress)
            require_certified_answers(policy, otherwise)
            self._signers.check(policy)
        except (InputError, EnvironmentProblem) as problem:
            if asked is not None:
                raise
            progress(f"{seat.name} is not served, which nobody named for this start: {problem}")
            return None
        if self._share:
            self._ask(lambda: self._store.put(folder, family))
        in_force = policy
        if asked is not None:
            in_force = self._ask(lambda: _seed(revisions, folder, family, policy, progress))
            require_certified_answers(in_force, otherwise)
            self._signers.check(in_force)
        if unpriced := [variant.name for variant in family.variants if variant.usd_per_1k is None]:
            progress(f"the family has no price for {', '.join(unpriced)}: what they cost is not counted")
        slots = slots_of(settings, family, in_force)
        return Started(folder=str(folder), slots=slots, otherwise=otherwise)

    def _ask(self, ask: Callable[[], Answer]) -> Answer:
        return _asking(self._state, ask)

    def _find(self, pushed: Revision, seat: Seat, *, lost_is_replaced: bool) -> tuple[Path, Family] | None:
        """Return the family of a revision; None, and say so, where it is lost. Raises FamilyUnreachable."""
        try:
            folder = self._store.locate(pushed.family)
            return folder, read_family(folder)
        except FamilyUnreachable:
            raise
        except FamilyError as problem:
            then = "the one of the command line starts in its place" if lost_is_replaced else "is not served"
            self._progress(
                f"the family of the state directory's revision {pushed.number} is lost, and "
                f"{then if lost_is_replaced else f'{seat.name} {then}'}: {problem}"
            )
            return None


def _asking(state: str, ask: Callable[[], Answer]) -> Answer:
    """Return what the state answers. Raises EnvironmentProblem where it cannot be asked."""
    try:
        return ask()
    except OSError as problem:
        raise EnvironmentProblem(
            f"the state cannot be kept at {state}: {problem}", hint="see docs/cluster.md for what it needs"
        ) from None


def _pushed_since(state: RevisionStore, family: Family) -> Revision | None:
    """Return the revision in force where another family took this one's place since a start with this one."""
    latest = state.latest()
    if latest is None or latest.family_sha256 == family.sha256:
        return None
    started = next((revision for revision in reversed(state.history()) if revision.is_seed), None)
    return latest if started is not None and started.family_sha256 == family.sha256 else None


def planned_slots(settings: Settings, folder: Path) -> dict[str, Slots]:
    """Return where each variant would run, by family, with nothing started and nothing seeded.

    Raises as `assign`.
    """
    return {
        name: slots_of(settings, asked.family, asked.policy)
        for name, asked in _read(settings, folder).items()
    }


def _read(settings: Settings, folder: Path) -> dict[str, _Asked]:
    """Return the families that the settings name, by the names that they are served under."""
    if settings.fake is not None:
        family_folder = folder / "family"
        family, policy = _make_fakes(family_folder, settings.fake)
        if settings.policy is not None:
            policy = read_policy(Path(settings.policy))
        check_policy_fits(policy, family)
        return {served_name(family.name): _Asked(family_folder, family, policy)}
    found: dict[str, _Asked] = {}
    for given in settings.started:
        name, asked = _read_one(given)
        if name in found:
            raise InputError(
                f"two families would be served as {name!r}",
                where=given.path,
                hint="give one of them another name: families: [{path: ..., name: ...}] in a settings file",
            )
        found[name] = asked
    return found


def _read_one(given: FamilySettings) -> tuple[str, _Asked]:
    folder = Path(given.path)
    family = read_family(folder)
    policy = single_variant_policy(family.teacher)
    if given.policy is not None:
        policy = read_policy(Path(given.policy))
    check_policy_fits(policy, family)
    return given.name or served_name(family.name), _Asked(folder, family, policy)


def _make_fakes(folder: Path, fake: FakeSettings) -> tuple[Family, Policy]:
    """Write the family of `serve --fake`; its policy has the cheapest fake and the teacher as stages."""
    family = write_fake_family(
        folder,
        delay_ms=fake.delay_ms / 10,
        error_rate={TEACHER: fake.error_rate},
        faults=fake.faults,
        seed=fake.seed,
        rows=300,
    )
    first = Stage(variant=family.names[0], temperature=1.0, threshold=0.8)
    stages = (first, Stage(variant=family.teacher))
    return family, Policy(status="uncertified", reference=family.teacher, stages=stages).sealed()


def _seed(
    state: RevisionStore, family_folder: Path, family: Family, policy: Policy, progress: Progress
) -> Policy:
    """Commit the first revision, or one for a new family; an existing state of this family stays in force."""
    latest = state.latest()
    if latest is not None and latest.family_sha256 == family.sha256:
        if latest.policy.version != policy.version:
            progress(f"the state directory's revision {latest.number} stays in force; push to change it")
        return latest.policy
    if latest is not None:
        progress(
            f"the state directory was for another family: its revision {latest.number} is out of force, "
            f"and revision {latest.number + 1} starts this one"
        )
    named = FamilyReference(name=family.name, sha256=family.sha256, path=str(family_folder))
    if latest is None:
        state.commit(first_revision(policy, named, "seed"))
    else:
        seeded = following(latest, latest.serving(policy, named), SEED_FOR_ANOTHER)
        state.commit(seeded.model_copy(update={"seed": True}))
    return policy
