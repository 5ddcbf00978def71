"""What one family serves now: the plan in force, its models, and the requests on it or on those before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from contract.errors import NotReady, UnknownModel
from contract.policy import BUSY
from serve.dataplane.governor import Governor
from serve.dataplane.plan import Plan, describe, make_plans
from serve.settings.gears import GearSettings
from serve.types.messages import CASCADE, ModelInfo, local_name
from serve.types.stage import Snapshot, Snapshots

_LOOK_EVERY_S = 0.02


class Stopping(NotReady):
    """The gateway takes nothing new, whoever would answer it."""


class Held:
    """Requests that work on one snapshot.

    Args:
        plans: of its gears, the safest first.
        at: the gear to begin in.

    Attributes:
        plan: of the gear that new requests take.
        governor: moves it; None where nothing does.
    """

    __slots__ = ("catalogue", "count", "dearest_usd", "drained", "governor", "plan", "plans")

    def __init__(self, plans: tuple[Plan, ...], at: int = 0) -> None:
        self.plans = plans
        self.plan = plans[at]
        self.governor: Governor | None = None
        self.dearest_usd: float | None = None
        self.catalogue: tuple[ModelInfo, ...] = ()
        self.count = 0
        self.drained = asyncio.Event()


class Inside:
    """The place of one request among those inside, given up once: at the latest with the object.

    Attributes:
        plan: what the request works on, in the gear that it came in.
    """

    __slots__ = ("_held", "_left", "_served", "_texts", "plan")

    def __init__(self, served: Served, held: Held, texts: int) -> None:
        self.plan = held.plan
        self._served = served
        self._held = held
        self._texts = texts
        self._left = False
        served._in_flight += texts
        held.count += 1

    def leave(self) -> None:
        """Give it up."""
        if not self._left:
            self._left = True
            self._served._leave(self._held, self._texts)

    def __del__(self) -> None:
        """A request may be given up before the first step of what finds its answers."""
        self.leave()


class Served:
    """What is served by the snapshot in force, and who is inside.

    Args:
        snapshots: gives the snapshot in force; raises NotReady.
        name: that the family is served under; its models are then known by `NAME` and `NAME/variant` too.
        gears: how load moves a policy along its gears.
    """

    def __init__(self, snapshots: Snapshots, name: str = "", gears: GearSettings | None = None) -> None:
        self._snapshots = snapshots
        self._gears = gears or GearSettings()
        self._name = name
        self._held: Held | None = None
        self._leaving: dict[Snapshot, Held] = {}
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Texts inside."""
        return self._in_flight

    @property
    def falls_short(self) -> bool:
        """See Plane; of one family there is no part."""
        return False

    async def ready(self) -> bool:
        """Return whether every stage of the policy, of each of its gears, would answer now."""
        try:
            snapshot = self._current().plan.snapshot
        except NotReady:
            return False
        asked = (snapshot.stages[name] for name in snapshot.policy.variants)
        return all(await asyncio.gather(*(stage.ready() for stage in asked)))

    async def model_ready(self, model: str) -> bool:
        """Return whether that model would answer now. Raises UnknownModel, NotReady."""
        local = self.local_name(model)
        if local == CASCADE:
            return await self.ready()
        return await self._current().plan.snapshot.stages[local].ready()

    def model(self, name: str) -> ModelInfo:
        """Describe a served model. Raises UnknownModel, NotReady."""
        local = self.local_name(name)
        return replace(describe(local, self._current().plan, self._name), name=name)

    def models(self) -> tuple[str, ...]:
        """Return the names of what is served, the cascade first. Raises NotReady."""
        return (CASCADE, *self._current().plan.snapshot.stages)

    def catalogue(self) -> tuple[ModelInfo, ...]:
        """Describe all that is served, the cascade first; the same object while it is the same.

        Raises NotReady.
        """
        held = self._current()
        if not held.catalogue:
            held.catalogue = tuple(describe(name, held.plan, self._name) for name in self.models())
        return held.catalogue

    def made_at(self, name: str = CASCADE) -> str:  # noqa: ARG002 - one family has all of its models
        """Return when the family in force was made, as its manifest says; empty where it does not."""
        return self._current().plan.snapshot.family.created_at

    def local_name(self, name: str) -> str:
        """Return the short name of a served model. Raises UnknownModel, NotReady when none is yet."""
        stages = self._current().plan.snapshot.stages
        if name == CASCADE or name in stages:
            return name
        local = local_name(name, self._name)
        if local != CASCADE and local not in stages:
            raise UnknownModel(name, (CASCADE, *stages))
        return local

    def check_served(self, name: str) -> None:
        """Raise UnknownModel unless that model is served, NotReady when none is yet."""
        self.local_name(name)

    def dearest_usd(self, name: str) -> float:
        """Return what one text costs by a model at the most: by the cascade, where every stage runs."""
        held, local = self._current(), self.local_name(name)
        if local != CASCADE:
            return _usd_of(held.plan, (local,))
        if held.dearest_usd is None:
            held.dearest_usd = max(
                _usd_of(plan, [step.rules.variant for step in plan.steps]) for plan in held.plans
            )
        return held.dearest_usd

    def serves(self, name: str) -> bool:
        """Return whether that is the name of a served model; no name is before the first revision."""
        try:
            self.check_served(name)
        except (UnknownModel, NotReady):
            return False
        return True

    async def drain(self) -> None:
        """Refuse new requests and be unready from now on; return once none is left inside."""
        self._snapshots = _stopping
        while self._in_flight:
            await asyncio.sleep(_LOOK_EVERY_S)

    async def drained(self, snapshot: Snapshot) -> None:
        """Return once no request works on `snapshot`, which is out of force. Raises NotReady."""
        self._current()
        if snapshot in self._leaving:
            await self._leaving[snapshot].drained.wait()

    def _leave(self, held: Held, texts: int) -> None:
        self._in_flight -= texts
        held.count -= 1
        if not held.count and held is not self._held:
            self._leaving.pop(held.plan.snapshot, None)
            held.drained.set()

    def _current(self) -> Held:
        snapshot = self._snapshots()
        held = self._held
        if held is not None and held.plan.snapshot is snapshot:
            return held
        if held is not None and held.count:
            self._leaving[held.plan.snapshot] = held
        self._held = self._hold(snapshot, None if held is None else held.plan.gear)
        return self._held

    def _hold(self, snapshot: Snapshot, before: str | None) -> Held:
        """Return a place for requests on a snapshot, in the gear of that name if it has it, else in busy."""
        plans = make_plans(snapshot)
        names = [plan.gear for plan in plans]
        begins = before if before in names and self._gears.enabled else BUSY
        fixed = snapshot.gear if snapshot.gear in names else None
        held = Held(plans, names.index(fixed or begins) if len(plans) > 1 else 0)
        if fixed is None and len(plans) > 1 and self._gears.enabled:
            lowest = 0 if self._gears.idle else names.index(BUSY)
            held.governor = Governor(len(plans), plans.index(held.plan), lowest, self._gears)
        return held


def _usd_of(plan: Plan, variants: Sequence[str]) -> float:
    return sum(plan.prices.charges((variant, 1) for variant in variants).values())


def _stopping() -> Snapshot:
    raise Stopping("the gateway is stopping")
