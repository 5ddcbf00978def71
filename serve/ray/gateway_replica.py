"""What a gateway replica runs: cheap stages inside, the others behind handles, the data plane and its app."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from contract.errors import EnvironmentProblem, InputError, NotReady
from contract.family import Family
from contract.live import FamilyReference, Revision, parse_revision
from serve.access.accounts import Accounts
from serve.access.charging import Charging
from serve.access.exchange import Call, Exchange
from serve.access.follower import KeyFollower
from serve.access.gate import Gate
from serve.access.key_store import open_keys
from serve.access.ledger import Answer, Report
from serve.control.evidence import ReplicaCounts
from serve.control.families import store_of
from serve.control.follower import Follower
from serve.control.plane import ReplicaState
from serve.control.revision_store import RevisionStore
from serve.grpc.service import InferenceService
from serve.http.app import Gateway
from serve.ray.scaling import BUSY, WAITING
from serve.settings.slots import INLINE
from serve.stages.inline import InlineStage, check_hanging
from serve.stages.load_meter import BusyShare
from serve.stages.loaded_families import LoadedFamilies
from serve.stages.loading import Assignment, load_stage, make_snapshot
from serve.stages.loop_turn import LoopTurn
from serve.stages.remote import RemoteStage
from serve.telemetry.metrics import Telemetry, policy_state
from serve.telemetry.nodes import join_pages
from serve.telemetry.observer import make_observer
from serve.traffic.plane import TrafficPlane
from serve.types.clock import Clock
from serve.types.recorder import BreakerState
from serve.types.stage import Snapshot, Stage, Trial

ACCOUNT_EVERY_S = 0.5
_COMMIT_S = 35.0
"""Once the last gateway has loaded, a commit follows within this, or never."""
_BADNESS: tuple[BreakerState, ...] = ("closed", "half_open", "open")
Connect = Callable[[str, str, str], RemoteStage]


class GatewayReplica:
    """One gateway process, whoever hosts it.

    Args:
        name: how this replica calls itself in the live state.
        assignment: of this run.
        connect: makes the stage of a variant that does not run here, given its deployment, name and build.
        telemetry: where its figures go.
        state: where the live state is.
        exchange: asks the ledger that divides the limits of keys; None where this replica is alone.
        pages: gives what each of several nodes has counted; None where there is one.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        assignment: Assignment,
        connect: Connect,
        telemetry: Telemetry,
        state: RevisionStore,
        exchange: Call | None = None,
        pages: Callable[[], Mapping[str, bytes]] | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        assignment.check_package()
        self._name = name
        self._telemetry = telemetry
        self._pages = pages
        self._observer = make_observer(assignment.settings, "gateway")
        recorder = telemetry if self._observer is None else self._observer.recorder(telemetry)
        self._recorder = recorder
        self._assignment = assignment
        self._connect = connect
        self._busy = BusyShare(time.process_time)
        self._turn = LoopTurn()
        store = store_of(assignment)
        self._families = LoadedFamilies(
            lambda reference: store.locate(reference, Path(assignment.family)),
            store.fetch,
            self._placed_here,
            self._load_inline,
            store.let_go,
        )
        self._remotes: dict[tuple[str, str], RemoteStage] = {}
        self._leaving: dict[Snapshot, frozenset[str]] = {}
        self._departures: set[asyncio.Task[None]] = set()
        limits = assignment.settings.limits
        self._follower = Follower(
            state,
            self._load,
            self._flipped,
            self._share_out,
            idle=self._tidy,
            prepared_s=assignment.settings.ready_timeout_s + _COMMIT_S,
            clock=clock,
        )
        accounts = Accounts(f"{name}/{os.getpid()}", assignment.settings.gateway_replicas)
        gate = Gate(accounts)
        self._exchange = Exchange(accounts, exchange or _alone)
        self._dataplane = TrafficPlane(
            self._follower.snapshot, limits, Charging(accounts, recorder), assignment.settings.traffic
        )
        self._keys = KeyFollower(open_keys(assignment.state), gate)
        self.gateway = Gateway(
            self._dataplane,
            limits,
            recorder,
            self._metrics_page,
            gate=gate,
            access=assignment.settings.access,
            observer=self._observer,
        )
        self.grpc = InferenceService(
            self._dataplane, limits, recorder, self._metrics_page, gate=gate, observer=self._observer
        )
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def healthy(self) -> bool:
        """Whether traffic may be sent here."""
        return not self._stopping and self._follower.problem is None and self._follower.revision > 0

    def check_hanging(self) -> None:
        """Raise StageFailed where a model does not come back; nothing in this process can end it."""
        check_hanging(self._families.stages)

    async def start(self) -> None:
        """Put the newest revision in force and begin to follow. Raises NotReady when none can be loaded."""
        await self._keys.catch_up()
        if not await self._follower.catch_up():
            raise NotReady(self._follower.problem or "there is no revision in the state directory")
        self._tasks = [
            asyncio.create_task(self._follower.follow()),
            asyncio.create_task(self._keys.follow()),
            asyncio.create_task(self._exchange.run()),
            asyncio.create_task(account(self._telemetry, self._queued, self._book)),
        ]

    async def prepare(self, raw: dict[str, Any]) -> str | None:
        """Load a revision beside the one in force; return what speaks against it, if anything."""
        try:
            await self._follower.prepare(parse_revision(raw))
        except (InputError, EnvironmentProblem) as problem:
            self._tidy()
            return str(problem)
        return None

    async def forget(self) -> None:
        """Let go of what was prepared and will not be committed."""
        self._follower.forget_prepared()
        self._tidy()

    async def catch_up(self) -> ReplicaState:
        """Put the newest committed revision, and the newest keys, in force and say where this replica is."""
        if await self._keys.catch_up():
            await self._exchange.once()
        number = await self._follower.catch_up()
        return ReplicaState(self._name, os.getpid(), number, self._follower.problem)

    async def counts(self) -> ReplicaCounts:
        """Return what this process has counted of trials since it started."""
        counts = self._dataplane.counts().items()
        return ReplicaCounts(
            self._name, {trial: found.model_dump(mode="json") for trial, (_, found) in counts}
        )

    async def ready(self) -> bool:
        """Return whether every stage of the policy answers."""
        return await self._dataplane.ready()

    async def drain(self) -> None:
        """Take no more requests; return once those inside are answered."""
        self._stopping = True
        await self._dataplane.drain()
        await self._exchange.once()
        self.flush()
        if self._observer is not None:
            await asyncio.to_thread(self._observer.close)

    def flush(self) -> None:
        """Write what was counted where scrapes find it."""
        self._book_arms()
        self._telemetry.flush()

    async def _load(self, revision: Revision) -> Snapshot:
        """Make a revision's snapshot; a family that is not here yet is loaded beside the one that is."""
        for reference in revision.families[1:]:
            await self._stages_of(reference)
        family, stages = await self._stages_of(revision.family)
        if self._observer is not None:
            stages = self._observer.stages(stages)
        snapshot = make_snapshot(revision, family, stages)
        trials = [
            Trial(kind, candidate, await self._load(revision.serving(candidate.policy, candidate.family)))
            for kind, candidate in revision.trials()
        ]
        return replace(snapshot, trials=tuple(trials)) if trials else snapshot

    def _share_out(self, snapshot: Snapshot) -> None:
        self._book_arms()
        self._dataplane.follow(snapshot)

    def _book_arms(self) -> None:
        self._telemetry.arms.book(self._dataplane.counts())

    async def _stages_of(self, reference: FamilyReference) -> tuple[Family, Mapping[str, Stage]]:
        family = await self._families.learn(reference)
        stages: dict[str, Stage] = dict(await self._families.load(reference))
        for name, place in self._assignment.place(family).items():
            if place != INLINE:
                key = (place, family.build(name))
                if key not in self._remotes:
                    self._remotes[key] = self._connect(place, name, key[1])
                stages[name] = self._remotes[key]
        return family, stages

    def _placed_here(self, family: Family) -> list[str]:
        return [name for name, place in self._assignment.place(family).items() if place == INLINE]

    def _load_inline(self, folder: Path, family: Family, name: str) -> InlineStage:
        settings, turn = self._assignment.settings, self._turn
        return load_stage(settings, folder, family, name, self._recorder, "cpu", turn, guarded=True)

    def _flipped(self, before: Snapshot, families: frozenset[str]) -> None:
        self._leaving[before] = families
        task = asyncio.create_task(self._leave(before))
        self._departures.add(task)
        task.add_done_callback(self._departures.discard)

    async def _leave(self, before: Snapshot) -> None:
        """Free what only that snapshot needs, once no request works on it."""
        with suppress(NotReady):  # while it stops, nothing needs to be freed
            await self._dataplane.drained(before)
            del self._leaving[before]
            self._tidy()

    def _tidy(self) -> None:
        """Free the families that neither the live state nor a request needs."""
        needed = self._follower.families.union(*self._leaving.values())
        if not self._families.known - needed:
            return
        self._families.keep(needed)
        builds = {build for sha256 in self._families.known for build in self._families.builds(sha256)}
        for key in [key for key in self._remotes if key[1] not in builds]:
            del self._remotes[key]

    def load(self) -> dict[str, float]:
        """Return what scaling goes by: texts in the stages that run here, and the share of a core in use."""
        return {WAITING: sum(stage.queued for stage in self._families.stages), BUSY: self._busy.look()}

    def _stages(self) -> list[InlineStage | RemoteStage]:
        return [*self._families.stages, *self._remotes.values()]

    def _book(self) -> None:
        self._book_arms()
        states: dict[str, BreakerState] = {}
        for stage in self._stages():
            state = stage.look()
            if _BADNESS.index(state) >= _BADNESS.index(states.get(stage.variant, "closed")):
                states[stage.variant] = state
        self._telemetry.stages_are(states)

    def _queued(self) -> dict[str, int]:
        waiting: dict[str, int] = {}
        for stage in self._stages():
            waiting[stage.variant] = waiting.get(stage.variant, 0) + stage.queued
        return waiting

    def _metrics_page(self) -> bytes:
        counts = self._telemetry.counts() if self._pages is None else join_pages(self._pages())
        try:
            snapshot = self._follower.snapshot()
        except NotReady:
            return counts
        return counts + policy_state(snapshot.revision, snapshot.policy)


async def _alone(_: Report) -> Answer:
    raise NotReady("there is no ledger")


async def account(
    telemetry: Telemetry, queued: Callable[[], Mapping[str, int]], book: Callable[[], None] = lambda: None
) -> None:
    """Book this process's CPU time, queue lengths and what `book` does twice a second, for ever."""
    while True:
        book()
        telemetry.account_for_the_rest(time.process_time())
        for variant, items in queued().items():
            telemetry.queue_items.labels(variant).set(items)
        await asyncio.sleep(ACCOUNT_EVERY_S)
