"""From settings to what every process is told: family, policy and machine checked, the live state seeded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from contract.errors import EnvironmentProblem, FamilyError
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
from runtime.fake_family import TEACHER, write_fake_family
from runtime.load import check_family_runs
from serve.control.family_store import FamilyStore, FamilyUnreachable, open_family_store
from serve.control.machine_check import compare_answers
from serve.control.revision_store import RevisionStore, first_revision, following, open_revisions
from serve.settings.gateway import Settings
from serve.settings.slots import Slots, slots_of, without_effect
from serve.settings.stages import FakeSettings
from serve.stages.loading import Assignment, package_folder
from serve.telemetry.tracing import check_can_trace

Progress = Callable[[str], None]
Answer = TypeVar("Answer")


def assign(
    settings: Settings, folder: Path, progress: Progress = lambda _: None, *, share: bool = False
) -> Assignment:
    """Check family, policy and machine; seed the live state; return what every process is told.

    Args:
        settings: of the gateway.
        folder: holds the state where the settings name none, and the fake family.
        progress: told what people should know.
        share: keep the family with the state, for nodes that have not its folder.

    Raises:
        InputError, EnvironmentProblem: as `start`.
    """
    check_can_trace(settings.traces)
    family_folder, family, policy = _read(settings, folder)
    check_policy_fits(policy, family)
    state = settings.state or str(folder / "state")
    pushed = _asking(state, lambda: _pushed_since(open_revisions(state), family))
    cache = None if settings.family_cache is None else Path(settings.family_cache)
    found = None if pushed is None else _find(pushed, open_family_store(state, cache), progress)
    if pushed is not None and found is not None:
        family_folder, family, policy = *found, pushed.policy
        progress(
            f"the state directory's revision {pushed.number} stays in force, with the family "
            f"{family.name} {family.sha256[:12]} that was put in force while the gateway served; "
            "sluice family rollback goes back"
        )
    check_family_runs(family, settings.provider)
    otherwise = compare_answers(family_folder, family, settings, progress)
    require_certified_answers(policy, otherwise)
    if share:
        _asking(state, lambda: open_family_store(state, cache).put(family_folder, family))
    in_force = _asking(state, lambda: _seed(open_revisions(state), family_folder, family, policy, progress))
    require_certified_answers(in_force, otherwise)
    if unpriced := [variant.name for variant in family.variants if variant.usd_per_1k is None]:
        progress(f"the family has no price for {', '.join(unpriced)}: what they cost is not counted")
    slots = slots_of(settings, family, in_force)
    for words in without_effect(settings, slots):
        progress(words)
    return Assignment(
        settings=settings,
        slots=slots,
        family=str(family_folder),
        state=state,
        package=package_folder(),
        otherwise=otherwise,
    )


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


def _find(pushed: Revision, store: FamilyStore, progress: Progress) -> tuple[Path, Family] | None:
    """Return the family of a revision; None, and say so, where it is lost. Raises FamilyUnreachable."""
    try:
        folder = store.locate(pushed.family)
        return folder, read_family(folder)
    except FamilyUnreachable:
        raise
    except FamilyError as problem:
        progress(
            f"the family of the state directory's revision {pushed.number} is lost, and the one of the "
            f"command line starts in its place: {problem}"
        )
        return None


def planned_slots(settings: Settings, folder: Path) -> Slots:
    """Return where each variant would run, with nothing started and nothing seeded; raises as `assign`."""
    _, family, policy = _read(settings, folder)
    check_policy_fits(policy, family)
    return slots_of(settings, family, policy)


def _read(settings: Settings, folder: Path) -> tuple[Path, Family, Policy]:
    if settings.fake is not None:
        family_folder = folder / "family"
        family, policy = _make_fakes(family_folder, settings.fake)
    else:
        family_folder = Path(str(settings.family))
        family = read_family(family_folder)
        policy = single_variant_policy(family.teacher)
    if settings.policy is not None:
        policy = read_policy(Path(settings.policy))
    return family_folder, family, policy


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
