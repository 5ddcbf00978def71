"""What a gateway replica runs: cheap stages inside, the others behind handles, the data plane and its app."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from contract.errors import InputError, NotReady
from contract.live import Revision, parse_revision
from serve.access.follower import KeyFollower
from serve.access.gate import Gate
from serve.access.key_store import open_keys
from serve.control.follower import Follower
from serve.control.plane import ReplicaState
from serve.control.revision_store import RevisionStore
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.stages.inline import InlineStage, check_hanging
from serve.stages.loading import Assignment, load_stages, make_snapshot, read_served_family
from serve.stages.remote import RemoteStage
from serve.telemetry.metrics import Telemetry
from serve.telemetry.observer import make_observer
from serve.types.stage import Snapshot, Stage

ACCOUNT_EVERY_S = 0.5


class GatewayReplica:
    """One gateway process, whoever hosts it.

    Args:
        name: how this replica calls itself in the live state.
        assignment: of this run.
        remotes: the stages that do not run here, by variant.
        telemetry: where its figures go.
        state: where the live state is.
    """

    def __init__(
        self,
        name: str,
        assignment: Assignment,
        remotes: Mapping[str, RemoteStage],
        telemetry: Telemetry,
        state: RevisionStore,
    ) -> None:
        assignment.check_package()
        self._name = name
        self._telemetry = telemetry
        self._family = read_served_family(assignment)
        self._observer = make_observer(assignment.settings, "gateway")
        recorder = telemetry if self._observer is None else self._observer.recorder(telemetry)
        self._inline = load_stages(assignment, self._family, assignment.slots.inline, recorder, "cpu")
        self._stages: dict[str, InlineStage | RemoteStage] = {**self._inline, **remotes}
        self._follower = Follower(state, self._load)
        limits = assignment.settings.limits
        self._dataplane = DataPlane(self._follower.snapshot, limits, recorder)
        gate = Gate()
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
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def healthy(self) -> bool:
        """Whether traffic may be sent here."""
        return not self._stopping and self._follower.problem is None and self._follower.revision > 0

    def check_hanging(self) -> None:
        """Raise StageFailed where a model does not come back; nothing in this process can end it."""
        check_hanging(self._inline.values())

    async def start(self) -> None:
        """Put the newest revision in force and begin to follow. Raises NotReady when none can be loaded."""
        await self._keys.catch_up()
        if not await self._follower.catch_up():
            raise NotReady(self._follower.problem or "there is no revision in the state directory")
        self._tasks = [
            asyncio.create_task(self._follower.follow()),
            asyncio.create_task(self._keys.follow()),
            asyncio.create_task(account(self._telemetry, self._queued)),
        ]

    async def prepare(self, raw: dict[str, Any]) -> str | None:
        """Load a revision beside the one in force; return what speaks against it, if anything."""
        try:
            self._follower.prepare(parse_revision(raw))
        except InputError as problem:
            return str(problem)
        return None

    async def catch_up(self) -> ReplicaState:
        """Put the newest committed revision, and the newest keys, in force and say where this replica is."""
        await self._keys.catch_up()
        number = await self._follower.catch_up()
        return ReplicaState(self._name, os.getpid(), number, self._follower.problem)

    async def ready(self) -> bool:
        """Return whether every stage of the policy answers."""
        return await self._dataplane.ready()

    async def drain(self) -> None:
        """Take no more requests; return once those inside are answered."""
        self._stopping = True
        await self._dataplane.drain()
        self._telemetry.flush()
        if self._observer is not None:
            await asyncio.to_thread(self._observer.close)

    def flush(self) -> None:
        """Write what was counted where scrapes find it."""
        self._telemetry.flush()

    def _load(self, revision: Revision) -> Snapshot:
        stages: Mapping[str, Stage] = self._stages
        if self._observer is not None:
            stages = self._observer.stages(stages)
        return make_snapshot(revision, self._family, stages)

    def _queued(self) -> dict[str, int]:
        return {name: stage.queued for name, stage in self._stages.items()}

    def _metrics_page(self) -> bytes:
        try:
            snapshot = self._follower.snapshot()
        except NotReady:
            return self._telemetry.render(0, None)
        return self._telemetry.render(snapshot.revision, snapshot.policy)


async def account(telemetry: Telemetry, queued: Callable[[], Mapping[str, int]]) -> None:
    """Book this process's CPU time and queue lengths twice a second, for ever."""
    while True:
        telemetry.account_for_the_rest(time.process_time())
        for variant, items in queued().items():
            telemetry.queue_items.labels(variant).set(items)
        await asyncio.sleep(ACCOUNT_EVERY_S)
