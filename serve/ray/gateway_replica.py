"""What a gateway replica runs: families side by side, the stages that they share, one front for all."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from contract.errors import EnvironmentProblem, InputError, NotReady
from contract.family import Family
from contract.live import FamilyReference, parse_revision
from contract.roster import Roster, Seat
from serve.access.accounts import Accounts
from serve.access.charging import Charging
from serve.access.exchange import Call, Exchange
from serve.access.follower import KeyFollower
from serve.access.gate import Gate
from serve.access.key_store import open_keys
from serve.access.ledger import Answer, Report
from serve.collecting.gateway import make_collecting
from serve.control.evidence import ReplicaCounts
from serve.control.families import store_of
from serve.control.plane import ReplicaState
from serve.control.revision_store import open_revisions
from serve.control.roster_follower import RosterFollower
from serve.control.roster_store import RosterStore
from serve.dataplane.family_planes import FamilyPlanes
from serve.grpc.service import InferenceService
from serve.http.app import Gateway
from serve.http.decisions.routes import DecisionRoutes
from serve.ray.replica_figures import OfFamily, account, queued_at, shift_gears, states_of
from serve.ray.scaling import BUSY, WAITING
from serve.ray.served_family import ServedFamily, Surroundings
from serve.settings.slots import INLINE
from serve.stages.http import HttpStage
from serve.stages.inline import InlineStage, check_hanging
from serve.stages.load_meter import BusyShare
from serve.stages.loaded_families import LoadedFamilies
from serve.stages.loading import Assignment, load_here
from serve.stages.loop_turn import LoopTurn
from serve.stages.remote import RemoteStage
from serve.stages.served_names import ServedNames
from serve.telemetry.metrics import Telemetry, policy_state
from serve.telemetry.nodes import join_pages
from serve.telemetry.observer import make_observer
from serve.types.clock import Clock
from serve.types.recorder import Recorder
from serve.types.stage import Stage
from serve.upstream.client import Upstream

_COMMIT_S = 35.0
"""Once the last gateway has loaded, a commit follows within this, or never."""
_BEFORE_WRITING_SHARE = 0.3
"""Of the time to stop, in which what is inside may be answered before counts and rows are written."""
log = logging.getLogger(__name__)

Connect = Callable[[str, str, str, Recorder], RemoteStage]


class GatewayReplica:
    """One gateway process, whoever hosts it.

    Args:
        name: how this replica calls itself in the live state.
        assignment: of this run.
        connect: makes the stage of a variant that does not run here, given deployment, name and build, and
            who is told what happens at it.
        telemetry: where its figures go.
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
        self._assignment = assignment
        self._connect = connect
        self._busy = BusyShare(time.process_time)
        self._turn = LoopTurn()
        self._names = ServedNames(assignment)
        self._families = _loaded_families(assignment, self._names, self._load_inline)
        self._remotes: dict[tuple[str, str], tuple[str, RemoteStage]] = {}
        limits = assignment.settings.limits
        self._accounts = Accounts(f"{name}/{os.getpid()}", assignment.settings.gateway_replicas)
        gate = Gate(self._accounts)
        self._exchange = Exchange(self._accounts, exchange or _alone)
        self._shared = Surroundings(
            self._stages_of,
            self._tidy,
            lambda served: Charging(self._accounts, self._recorder_of(served)),
            self._telemetry.arms.book,
            limits,
            assignment.settings.traffic,
            assignment.settings.gears,
            assignment.settings.ready_timeout_s + _COMMIT_S,
            clock,
        )
        self._served: dict[str, ServedFamily] = {}
        self._coming: dict[str, ServedFamily] = {}
        self._going: set[ServedFamily] = set()
        self._roster = RosterFollower(RosterStore(assignment.state), self._seat, self._expire)
        self._planes = FamilyPlanes()
        upstream = assignment.settings.upstream
        self._collecting = make_collecting(assignment.settings)
        listener = None if self._collecting is None else self._collecting.listener
        self._upstream = None if upstream is None else Upstream(upstream, listener)
        self._keys = KeyFollower(open_keys(assignment.state), gate)
        recorder = self._recorder_of("")
        self.gateway = Gateway(
            self._planes,
            limits,
            recorder,
            self._metrics_page,
            gate=gate,
            access=assignment.settings.access,
            observer=self._observer,
            decisions=DecisionRoutes(
                self._planes, limits, recorder, gate, assignment.settings.decisions, self._upstream
            ),
        )
        self.grpc = InferenceService(
            self._planes, limits, recorder, self._metrics_page, gate=gate, observer=self._observer
        )
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def healthy(self) -> bool:
        """Whether traffic may be sent here: some family answers, or there is none."""
        return not self._stopping and self._roster.number > 0 and self._problem() is None

    def _problem(self) -> str | None:
        """Return why this replica has fallen behind with every family, if it has."""
        problems = [served.follower.problem for served in self._served.values()]
        return None if None in problems else next(iter(problems), None)

    def check_hanging(self) -> None:
        """Raise StageFailed where a model does not come back; nothing in this process can end it."""
        check_hanging(self._families.stages)

    async def start(self) -> None:
        """Put what is newest in force and begin to follow. Raises NotReady when no family can be loaded."""
        await self._keys.catch_up()
        await self._roster.catch_up()
        if not self._roster.number:
            raise NotReady(self._roster.problem or "there is no roster in the state directory")
        behind = {
            name: served.follower.problem or "there is no revision in the state directory"
            for name, served in self._served.items()
            if not served.follower.revision
        }
        for name, problem in behind.items():
            if len(behind) == len(self._served):
                raise NotReady(f"{name}: {problem}")
            log.error("%s is not served here until it can be loaded: %s", name, problem)
        following = (
            self._roster.follow(),
            self._keys.follow(),
            self._exchange.run(),
            account(self._telemetry, lambda: queued_at(self._stages()), self._book),
            shift_gears(lambda: [served.plane for served in self._served.values()]),
        )
        self._tasks.update(map(asyncio.create_task, following))

    async def prepare(self, raw: dict[str, Any], family: str = "", place: str = "") -> str | None:
        """Load a revision beside the one in force; return what speaks against it, if anything.

        Args:
            raw: its JSON form.
            family: name that its family is, or will be, served under; empty: of the only one.
            place: where that one's revisions lie, if it is not served yet.
        """
        served = self._only(family)
        if served is None:
            served = self._coming.get(family) or self._make(Seat(name=family, place=place))
            self._coming[family] = served
        try:
            await served.follower.prepare(parse_revision(raw))
        except (InputError, EnvironmentProblem) as problem:
            if not served.families:
                self._coming.pop(family, None)
            self._tidy()
            return str(problem)
        return None

    async def forget(self, family: str = "") -> None:
        """Let go of what was prepared for a family and will not be committed."""
        for served in (self._only(family), self._coming.pop(family, None)):
            if served is not None:
                served.follower.forget_prepared()
        self._tidy()

    async def catch_up(self, family: str = "") -> ReplicaState:
        """Put what is newest in force, keys too, and say where this replica is with a family."""
        if await self._keys.catch_up():
            await self._exchange.once()
        await self._roster.catch_up()
        served = self._only(family)
        if served is None:
            return ReplicaState(self._name, os.getpid(), 0, self._roster.problem)
        number = await served.follower.catch_up()
        problem = served.follower.problem or self._roster.problem
        return ReplicaState(self._name, os.getpid(), number, problem, served.plane.gear)

    async def counts(self, family: str = "") -> ReplicaCounts:
        """Return what this process has counted of a family's trials since it started."""
        served = self._only(family)
        counts = {} if served is None else served.plane.counts()
        return ReplicaCounts(
            self._name, {trial: found.model_dump(mode="json") for trial, (_, found) in counts.items()}
        )

    async def ready(self) -> bool:
        """Return whether every stage of every policy answers."""
        return await self._planes.ready()

    async def drain(self) -> None:
        """Take no more requests; return once those inside are answered.

        Whoever takes long does not keep from the disk what is there to be written before this process ends.
        """
        self._stopping = True
        leaving = [self._planes.drain(), *(served.plane.drain() for served in self._going)]
        if self._upstream is not None:
            leaving.append(self._upstream.close())
        inside = asyncio.gather(*leaving)
        within_s = self._assignment.settings.stop_timeout_s * _BEFORE_WRITING_SHARE
        _, late = await asyncio.wait([inside], timeout=within_s)
        if self._collecting is not None:
            await asyncio.to_thread(self._collecting.close)
        await self._write_counts()
        await inside
        if late:
            await self._write_counts()
        if self._observer is not None:
            await asyncio.to_thread(self._observer.close)

    async def _write_counts(self) -> None:
        await self._exchange.once()
        self.flush()

    def flush(self) -> None:
        """Write what was counted where scrapes find it."""
        self._book_arms()
        self._telemetry.flush()

    def _only(self, family: str) -> ServedFamily | None:
        """Return a family that is served, without a name the only one."""
        if not family and len(self._served) == 1:
            return next(iter(self._served.values()))
        return self._served.get(family)

    def _make(self, seat: Seat) -> ServedFamily:
        return ServedFamily(seat.name, open_revisions(self._assignment.state, seat.place), self._shared)

    async def _seat(self, roster: Roster) -> None:
        """Serve the families of a roster, those that are new once they are loaded, and no others."""
        served: dict[str, ServedFamily] = {}
        for seat in roster.seats:
            known = self._served.get(seat.name) or self._coming.get(seat.name) or self._make(seat)
            served[seat.name] = known
            if seat.name not in self._served:
                self._coming[seat.name] = known  # what it loads is needed, while others follow too
                await known.follower.catch_up()
        gone = [known for name, known in self._served.items() if name not in served]
        self._served = served
        self._planes.serve({name: known.plane for name, known in served.items()}, roster.plain)
        for name, known in served.items():
            self._coming.pop(name, None)
            known.begin()
        for known in gone:
            self._going.add(known)
            self._do(self._leave(known))

    async def _leave(self, served: ServedFamily) -> None:
        await served.leave()
        self._going.discard(served)
        self._tidy()

    def _do(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _expire(self) -> None:
        """Let go of families that were prepared and never came."""
        for name, served in list(self._coming.items()):
            served.follower.expire()
            if not served.families:
                del self._coming[name]

    def _recorder_of(self, served: str) -> Recorder:
        figures: Recorder = self._telemetry.of(served) if served else self._telemetry
        return figures if self._observer is None else self._observer.recorder(figures, served)

    def _book_arms(self) -> None:
        for served in self._served.values():
            served.book_arms()

    async def _stages_of(self, reference: FamilyReference, served: str) -> tuple[Family, Mapping[str, Stage]]:
        """Return a family and its stages, those that run here loaded."""
        self._names.note(reference.sha256, served)
        family = await self._families.learn(reference)
        stages: dict[str, Stage] = dict(await self._families.load(reference))
        for name, place in self._assignment.place(family, served).items():
            if place != INLINE:
                key = (place, family.build(name))
                if key not in self._remotes:
                    stage = self._connect(place, name, key[1], self._recorder_of(served))
                    self._remotes[key] = served, stage
                stages[name] = self._remotes[key][1]
        if self._collecting is not None:
            stages = self._collecting.stages(family, stages)
        return family, stages if self._observer is None else self._observer.stages(stages)

    def _load_inline(self, folder: Path, family: Family, name: str) -> InlineStage | HttpStage:
        served = self._names.of(family)
        recorder = self._recorder_of(served)
        return load_here(self._assignment.settings, folder, family, name, recorder, self._turn, served=served)

    def _tidy(self) -> None:
        """Free the families that neither the live state nor a request needs, under any name or under one."""
        holders = (*self._served.values(), *self._coming.values(), *self._going)
        pairs = {(sha256, holder.name) for holder in holders for sha256 in holder.families}
        needed = frozenset(sha256 for sha256, _ in pairs)
        if not self._names.keep(pairs) and not self._families.known - needed:
            return
        self._families.keep(needed)
        builds = {build for sha256 in self._families.known for build in self._families.builds(sha256)}
        for key in [key for key in self._remotes if key[1] not in builds]:
            del self._remotes[key]

    def load(self) -> dict[str, float]:
        """Return what scaling goes by: texts in the stages that run here, and the share of a core in use."""
        return {WAITING: sum(stage.queued for stage in self._families.stages), BUSY: self._busy.look()}

    def _stages(self) -> list[OfFamily]:
        return [*((stage.family, stage) for stage in self._families.stages), *self._remotes.values()]

    def _book(self) -> None:
        self._book_arms()
        self._telemetry.gears_are({name: served.plane.gear for name, served in self._served.items()})
        self._telemetry.stages_are(states_of(self._stages()))

    def _metrics_page(self) -> bytes:
        counts = self._telemetry.counts() if self._pages is None else join_pages(self._pages())
        in_force = []
        for served in list(self._served.values()):
            with suppress(NotReady):
                snapshot = served.follower.snapshot()
                in_force.append((served.name, snapshot.revision, snapshot.policy))
        return counts + policy_state(in_force, len(self._served))


def _loaded_families(
    assignment: Assignment,
    names: ServedNames,
    load: Callable[[Path, Family, str], InlineStage | HttpStage],
) -> LoadedFamilies[InlineStage | HttpStage]:
    store = store_of(assignment)
    return LoadedFamilies(
        lambda reference: store.locate(reference, *assignment.folders),
        store.fetch,
        lambda family: names.placed_at(family, INLINE),
        load,
        store.let_go,
    )


async def _alone(_: Report) -> Answer:
    raise NotReady("there is no ledger")
