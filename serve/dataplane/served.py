"""What one family serves now: the plan in force, its models, and the requests on it or on those before."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from contract.errors import NotReady, UnknownModel
from serve.dataplane.plan import Plan, describe, make_plan
from serve.types.messages import CASCADE, ModelInfo, local_name
from serve.types.stage import Snapshot, Snapshots

_LOOK_EVERY_S = 0.02


class Stopping(NotReady):
    """The gateway takes nothing new, whoever would answer it."""


class Held:
    """Requests that work on one plan."""

    __slots__ = ("catalogue", "count", "drained", "plan")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.catalogue: tuple[ModelInfo, ...] = ()
        self.count = 0
        self.drained = asyncio.Event()


class Inside:
    """The place of one request among those inside, given up once: at the latest with the object."""

    __slots__ = ("_held", "_left", "_served", "_texts")

    def __init__(self, served: Served, held: Held, texts: int) -> None:
        self._served = served
        self._held = held
        self._texts = texts
        self._left = False
        served._in_flight += texts
        held.count += 1

    @property
    def plan(self) -> Plan:
        """What the request works on."""
        return self._held.plan

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
    """

    def __init__(self, snapshots: Snapshots, name: str = "") -> None:
        self._snapshots = snapshots
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
        """Return whether every stage of the policy would answer now."""
        try:
            plan = self._current().plan
        except NotReady:
            return False
        return all(await asyncio.gather(*(step.stage.ready() for step in plan.steps)))

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
        plan, local = self._current().plan, self.local_name(name)
        runs = [(step.rules.variant, 1) for step in plan.steps] if local == CASCADE else [(local, 1)]
        return sum(plan.prices.charges(runs).values())

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
        self._held = Held(make_plan(snapshot))
        return self._held


def _stopping() -> Snapshot:
    raise Stopping("the gateway is stopping")
