"""Where each variant of a family runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from contract.errors import FamilyError
from contract.family import Family, Variant
from contract.policy import ABSTAIN, Policy, Stage
from serve.settings.gateway import Settings
from serve.settings.record import Setting

INLINE = "inline"
REMOTE = "remote"
SHELF = "shelf"


def own_deployment(variant: str) -> str:
    """Return the name of the deployment that a variant has to itself."""
    return f"stage-{variant}"


class Slots(Setting):
    """Where each variant runs for the whole life of a gateway; policies and families come and go within them.

    Named for the variants that the gateway was started with. `for_guests` says that there is a shelf for what
    is loaded later, whoever has a place on it now.
    """

    inline: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    shelf: tuple[str, ...] = ()
    for_guests: bool = False

    @property
    def deployments(self) -> tuple[str, ...]:
        """Names of the deployments that hold variants outside the gateway's replicas."""
        own = tuple(own_deployment(name) for name in self.own)
        return (*own, SHELF) if self.shelf or self.for_guests else own

    def place(self, family: Family, settings: Settings) -> dict[str, str]:
        """Return for every variant `inline` or the deployment that it runs in.

        A remote variant is asked from the gateway's replicas, whatever the settings say. A name that has a
        slot keeps it. A new one goes where the settings place it; else inline where it is linear, a deep
        table or measured fast enough; else, for the teacher, to a deployment that the family leaves empty;
        else to the shelf. The same for every process, since it depends on nothing else.

        Raises:
            FamilyError: a variant has no place in this gateway.
        """
        found = dict.fromkeys(self.inline, INLINE) | dict.fromkeys(self.shelf, SHELF)
        found |= {name: own_deployment(name) for name in self.own}
        free = [own_deployment(name) for name in self.own if name not in family.names]
        placed: dict[str, str] = {}
        by_need = sorted(family.variants, key=lambda variant: variant.name != family.teacher)
        for variant in by_need:
            name = variant.name
            if variant.runtime == REMOTE:
                placed[name] = INLINE
            else:
                placed[name] = found.get(name) or self._place_new(variant, family, settings, free)
        return {name: placed[name] for name in family.names}

    def _place_new(self, variant: Variant, family: Family, settings: Settings, free: list[str]) -> str:
        wish = settings.stage_of(variant.name).placement
        if wish == INLINE or (wish == "auto" and _is_quick(variant, settings)):
            return INLINE
        wants_own = wish == "own" or (wish == "auto" and variant.name == family.teacher)
        if free and (wants_own or not self.shelf):
            return free.pop(0)
        if self.shelf and wish != "own":
            return SHELF
        kind = "deployment of its own" if wish == "own" else "shelf"
        raise FamilyError(
            f"variant {variant.name!r} has no place: this gateway was started without a {kind} that is free",
            hint=f"give it the name of a variant that it replaces ({', '.join((*self.own, *self.shelf))}), "
            "or start a gateway with this family",
        )


def place_guest(family: Family, settings: Settings, deployments: Sequence[str]) -> dict[str, str]:
    """Return for every variant of a family that was loaded later `inline` or the deployment that it runs in.

    Inline where it is remote, where the settings place it so, and where it is linear or measured fast enough;
    else on the shelf; where there is none, in the deployment of a variant of its name, else in the first.
    """
    placed = {}
    for variant in family.variants:
        wish = settings.stage_of(variant.name).placement
        namesake = own_deployment(variant.name)
        if (
            variant.runtime == REMOTE
            or wish == INLINE
            or not deployments
            or (wish == "auto" and _is_quick(variant, settings))
        ):
            placed[variant.name] = INLINE
        elif SHELF in deployments:
            placed[variant.name] = SHELF
        else:
            placed[variant.name] = namesake if namesake in deployments else deployments[0]
    return placed


def union_of(several: Iterable[Slots], *, for_guests: bool = False) -> Slots:
    """Return the slots of several families together: stages of one name share a deployment.

    `for_guests` is whether there is a shelf for families that come later, whatever the others need.
    """
    told = list(several)
    return Slots(
        inline=tuple(dict.fromkeys(name for slots in told for name in slots.inline)),
        own=tuple(dict.fromkeys(name for slots in told for name in slots.own)),
        shelf=tuple(dict.fromkeys(name for slots in told for name in slots.shelf)),
        for_guests=for_guests,
    )


def slots_of(settings: Settings, family: Family, policy: Policy) -> Slots:
    """Return the slot of every variant.

    Remote variants inline; others as placed by the settings; else inline where an earlier stage of the
    policy or of one of its gears, or the first of one that abstains, linear, a deep table, or measured fast
    enough (fakes never count as fast, so that `--fake` has all slots); the last stage in a deployment of its
    own; the others on the shelf.
    """
    stages = policy.variants
    early = {stage.variant for stages in policy.cascades for stage in _early(stages)}
    found: dict[str, list[str]] = {"inline": [], "own": [], "shelf": []}
    for variant in family.variants:
        placement = settings.stage_of(variant.name).placement
        if variant.runtime == REMOTE:
            placement = "inline"
        elif placement == "auto":
            if variant.name in early or _is_quick(variant, settings):
                placement = "inline"
            else:
                placement = "own" if variant.name in stages else "shelf"
        found[placement].append(variant.name)
    return Slots(inline=tuple(found["inline"]), own=tuple(found["own"]), shelf=tuple(found["shelf"]))


def _early(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Return the stages before the last that answers; where it is the first of few that abstain, that too."""
    return stages[: max(1, len(stages) - 2)] if stages[-1].variant == ABSTAIN else stages[:-1]


def without_effect(settings: Settings, slots: Slots) -> tuple[str, ...]:
    """Return in words which settings of single variants change nothing in these slots."""
    names = (*slots.inline, *slots.own, *slots.shelf)
    said = []
    for name, own in settings.stages.items():
        if name not in names:
            near = get_close_matches(name, names, 1)
            meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
            said.append(f"stages.{name} has no effect now: the family has no such variant; {meant}")
        elif name not in slots.own and own.replicas != settings.stage.replicas:
            where = "inside the gateway's replicas" if name in slots.inline else "on the shelf, which has one"
            said.append(f"stages.{name}.replicas has no effect: it runs {where}")
    return tuple(said)


def _is_quick(variant: Variant, settings: Settings) -> bool:
    if variant.kind in {"linear", "deep_table"}:
        return True
    measured = variant.latency_at()
    return measured is not None and measured.p50_ms <= settings.inline_below_ms and variant.runtime != "fake"
