"""The gateway as Ray Serve deployments: slots that stay as they are, whatever policy is in force."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from contract.errors import NotReady, RequestError, StageFailed
from runtime.energy import EnergyMeter
from runtime.room import memory_room
from serve.access.exchange import Bank, Journal
from serve.access.follower import KeyFollower
from serve.access.gate import Gate
from serve.access.key_store import open_keys
from serve.access.ledger import Answer, Report
from serve.control.admin import make_admin
from serve.control.admin_server import serve_admin
from serve.control.evidence import ReplicaCounts
from serve.control.families import store_of
from serve.control.family_line import FamilyLine
from serve.control.plane import ReplicaState
from serve.control.roster_control import RosterControl
from serve.control.roster_store import RosterStore
from serve.ray import grpc_ingress, ingress_middleware
from serve.ray.all_replicas import APPLICATION, GATEWAY, AllReplicas
from serve.ray.gateway_replica import GatewayReplica
from serve.ray.ledger_call import exchange_through
from serve.ray.node_pages import NodePages, page_of_this_node
from serve.ray.replica_figures import account
from serve.ray.scaling import ByLoad
from serve.ray.stage_calls import call_off_through, call_through, ping_through
from serve.ray.stage_worker import StageWorker
from serve.settings.scaling import Scaling
from serve.settings.slots import SHELF, own_deployment
from serve.stages.call import Ask, Reply
from serve.stages.loading import Assignment
from serve.stages.remote import RemoteStage
from serve.storage.objects import open_objects
from serve.telemetry.logs import set_up_logs
from serve.telemetry.metrics import MULTIPROCESS_DIR, Telemetry
from serve.telemetry.observer import make_observer
from serve.telemetry.shared_page import SharedPage
from serve.types.recorder import Recorder

log = logging.getLogger(__name__)

CONTROL = "control"
STAGE = "stage"

_FAR_ABOVE_OUR_OWN_BOUND = 100_000
METER_EVERY_S = 1.0
_TELL_EVERY_S = 1.0
HEALTH_TIMEOUT_S = 2
"""A replica that does not answer Serve so long, three times in a row, is killed and replaced."""


def leave_if_hanging(check: Callable[[], None]) -> None:
    """End this process where a model does not come back.

    Serve replaces who is dead at once, and who is sick after three looks.
    """
    try:
        check()
    except StageFailed as problem:
        log.critical("%s: this process ends, to be replaced", problem)
        logging.shutdown()
        os._exit(1)


class GatewayIngress:
    """The ingress: requests come in here, cheap stages run here."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self,
        assignment: str,
        stages: dict[str, DeploymentHandle],
        control: DeploymentHandle,
        *,
        many_nodes: bool = False,
    ) -> None:
        given = Assignment.model_validate_json(assignment)
        set_up_logs(given.settings.log, GATEWAY)
        settings = given.settings
        telemetry = self._telemetry = Telemetry()
        self._page = SharedPage(telemetry.counts)
        name = ray_serve.get_replica_context().replica_id.unique_id
        asked = (GATEWAY, CONTROL, *given.slots.deployments)

        def connect(deployment: str, variant: str, build: str, recorder: Recorder) -> RemoteStage:
            handle = stages[deployment]
            stage = RemoteStage(
                variant,
                call_through(handle, variant, build, lambda: (name, stage.queued)),
                ping_through(handle, variant, build),
                settings.stage_of(variant),
                call_off=call_off_through(handle),
                recorder=recorder,
            )
            return stage

        self._replica = await asyncio.to_thread(
            GatewayReplica,
            name,
            given,
            connect,
            telemetry,
            exchange_through(control),
            NodePages(asked, APPLICATION) if many_nodes else None,
        )
        await self._replica.start()
        ingress_middleware.install(self._replica)
        grpc_ingress.install(self._replica.grpc)

    async def page_of_this_node(self) -> tuple[str, bytes]:
        """Return this node's name and what was counted on it."""
        return await page_of_this_node(self._page)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return what Serve calls where the hook is not used."""
        return self._replica.gateway.shell

    async def check_health(self) -> None:
        """End this process when a model here hangs; Serve asks once a second."""
        leave_if_hanging(self._replica.check_hanging)

    async def prepare(self, revision: dict[str, Any], family: str, place: str) -> str | None:
        """Load a revision beside the one in force; return what speaks against it, if anything."""
        return await self._replica.prepare(revision, family, place)

    async def forget(self, family: str) -> None:
        """Let go of what was prepared and will not be committed."""
        await self._replica.forget(family)

    async def catch_up(self, family: str) -> ReplicaState:
        """Put what is newest in force and say where this replica is with a family."""
        return await self._replica.catch_up(family)

    async def counts(self, family: str) -> ReplicaCounts:
        """Return what this process has counted of a family's trials."""
        return await self._replica.counts(family)

    async def ready(self) -> bool:
        """Return whether every stage of the policy answers, seen from here."""
        return await self._replica.ready()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what scaling goes by; Serve asks where the gateway has a range of replicas."""
        return self._replica.load()

    async def drain(self) -> None:
        """Take no more requests; return once those inside are answered."""
        await self._replica.drain()

    def __del__(self) -> None:
        """Serve calls this at the end of a graceful stop, and kills the process then: write the counts."""
        if hasattr(self, "_replica"):
            self._replica.flush()


class StageReplica:
    """A variant in a process of its own, or several on the shelf: what the family in force places here."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, assignment: str, deployment: str, *, preload: bool
    ) -> None:
        given = Assignment.model_validate_json(assignment)
        given.check_package()
        set_up_logs(given.settings.log, STAGE)
        self._telemetry = telemetry = Telemetry()
        self._page = SharedPage(telemetry.counts)
        self._worker = StageWorker(given, deployment, telemetry.of, make_observer(given.settings, STAGE))
        await self._worker.start(preload=preload)
        self._tasks = [
            asyncio.create_task(account(telemetry, dict)),
            asyncio.create_task(self._worker.follow()),
        ]
        if not preload:
            self._tasks.append(asyncio.create_task(self._worker.load_when(AllReplicas().ready)))

    async def page_of_this_node(self) -> tuple[str, bytes]:
        """Return this node's name and what was counted on it."""
        return await page_of_this_node(self._page)

    async def prepare(self, revision: dict[str, Any], family: str) -> str | None:
        """Load a revision's families beside those that are here; return what speaks against it, if any."""
        return await self._worker.prepare(revision, family)

    async def forget(self, family: str) -> None:
        """Let go of what was prepared and will not be committed."""
        await self._worker.forget(family)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what scaling goes by; Serve asks where the stage has a range of replicas."""
        return self._worker.load()

    async def infer(
        self, variant: str, build: str, asks: list[Ask], told: tuple[str, int] | None = None
    ) -> list[Reply]:
        """Answer asks, each with logits or its own error; see StageWorker.infer."""
        try:
            return await self._worker.infer(variant, build, asks, told)
        except RequestError as problem:
            return [problem for _ in asks]

    async def check_health(self) -> None:
        """End this process when a model here hangs; Serve asks once a second."""
        leave_if_hanging(self._worker.check_hanging)

    async def call_off(self, numbers: list[int]) -> None:
        """Drop asks that nobody waits for any more."""
        self._worker.call_off(numbers)

    async def ready(self, variant: str, build: str) -> bool:
        """Return whether the variant answers in that build."""
        try:
            return await self._worker.ready(variant, build)
        except NotReady:
            return False

    def __del__(self) -> None:
        """Serve calls this at the end of a graceful stop, and kills the process then: write the counts."""
        if hasattr(self, "_telemetry"):
            self._telemetry.flush()


class Control:
    """The only writer of the live state, with the admin interface on loopback."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, assignment: str, *, many_nodes: bool = False
    ) -> None:
        given = Assignment.model_validate_json(assignment)
        given.check_package()
        self._telemetry = Telemetry()
        self._page = SharedPage(self._telemetry.counts)
        settings = given.settings
        set_up_logs(settings.log, CONTROL)
        keys, gate = open_keys(given.state), Gate()
        self._keys = KeyFollower(keys, gate)
        await self._keys.catch_up()
        store = store_of(given)
        room = None if many_nodes else memory_room
        replicas = AllReplicas(given.slots.deployments, settings.ready_timeout_s)
        self._roster = roster = RosterControl(
            RosterStore(given.state),
            store,
            lambda seat: FamilyLine(seat, given, store, replicas.of(seat.name, seat.place), room),
            may_be_empty=settings.may_be_empty,
            watch_every_s=settings.traffic.gather_s,
        )
        await roster.start()

        def describe() -> dict[str, Any]:
            """Say what the admin interface tells of this run beside its replicas and families."""
            return {
                "slots": given.slots.model_dump(mode="json", include={"inline", "own", "shelf"}),
                "port": settings.port,
                "admin_port": settings.admin_port,
            }

        admin = make_admin(roster.line, keys, describe, replicas.catch_up, roster)
        self._server = serve_admin(admin, gate, settings)
        self._bank = Bank(gate, Journal(open_objects(given.state)))
        self._following = asyncio.create_task(self._keys.follow())
        self._keeping = asyncio.create_task(self._bank.keep())
        metered = meter_energy(replicas.catch_up, self._telemetry, settings.watts_per_core)
        self._metering = asyncio.create_task(metered)

    async def page_of_this_node(self) -> tuple[str, bytes]:
        """Return this node's name and what was counted on it."""
        return await page_of_this_node(self._page)

    async def exchange(self, report: Report) -> Answer | None:
        """Divide the limits of keys anew; None while that cannot be done."""
        try:
            return await self._bank.exchange(report)
        except NotReady:
            return None

    async def check_health(self) -> None:
        """Have Serve replace this replica when the admin interface has ended."""
        if self._server.done():
            raise NotReady("the admin interface has ended")


async def meter_energy(
    states: Callable[[], Awaitable[object]], telemetry: Telemetry, watts_per_core: float | None = None
) -> None:
    """Add this machine's energy to the metrics once a second, for ever, from when the gateway answers.

    `states` returns once a replica answers, and raises NotReady before.
    """
    while True:
        try:
            await states()
            break
        except NotReady:
            await asyncio.sleep(METER_EVERY_S)
    meter = await asyncio.to_thread(EnergyMeter(watts_per_core=watts_per_core).start)
    booked = 0.0
    while True:
        await asyncio.sleep(METER_EVERY_S)
        joules = meter.joules()
        if joules is not None and joules > booked:
            telemetry.energy.labels(meter.provenance).inc(joules - booked)
            booked = joules


async def drain(within_s: float) -> None:
    """Have every gateway replica answer what it has in hand and take no more, while the stages still run.

    Serve's own draining does not see requests that come in by the hook, and stops the stages meanwhile.
    """
    try:
        handle = ray_serve.get_deployment_handle(GATEWAY, APPLICATION)
        await handle.broadcast("drain").results_async(timeout_s=within_s)
    except (RayError, RayServeException, TimeoutError):
        log.exception("not every gateway replica had answered all requests within %g s", within_s)


def how_many(replicas: int | Scaling) -> dict[str, Any]:
    """Return the options of a deployment that has so many replicas, or as many as load asks for."""
    if not isinstance(replicas, Scaling):
        return {"num_replicas": replicas}
    targets = {"queued": replicas.queued, "busy": replicas.busy}
    policy = AutoscalingPolicy(
        policy_function=f"{ByLoad.__module__}.{ByLoad.__name__}", policy_kwargs=targets
    )
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=replicas.min,
            max_replicas=replicas.max,
            upscale_delay_s=replicas.up_after_s,
            downscale_delay_s=replicas.down_after_s,
            look_back_period_s=replicas.window_s,
            metrics_interval_s=min(replicas.window_s / 2, _TELL_EVERY_S),
            policy=policy,
        )
    }


def make_application(
    assignment: Assignment, metrics_folder: Path, *, many_nodes: bool = False
) -> ray_serve.Application:
    """Return the whole gateway as one Serve application.

    Args:
        assignment: what every process is told.
        metrics_folder: where the processes of each node count.
        many_nodes: whether there may be several, whose counts any front door then shows.
    """
    settings, slots = assignment.settings, assignment.slots
    given = assignment.model_dump_json()
    processes = len(slots.deployments)
    gpus = 0.0 if settings.provider == "cpu" or not processes else int(100 / processes) / 100
    environment = {
        MULTIPROCESS_DIR: str(metrics_folder),
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }

    def slot(kind: type, name: str, *, gpus: float = 0.0, **options: Any) -> ray_serve.Deployment:
        actor: dict[str, Any] = {
            "num_cpus": 0.1,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": options.pop("environment", environment)},
            **options.pop("actor", {}),
        }
        return ray_serve.deployment(
            kind,
            name=name,
            ray_actor_options=actor,
            max_ongoing_requests=_FAR_ABOVE_OUR_OWN_BOUND,
            health_check_period_s=1,
            health_check_timeout_s=HEALTH_TIMEOUT_S,
            graceful_shutdown_wait_loop_s=0.2,
            graceful_shutdown_timeout_s=settings.stop_timeout_s / 2,
            logging_config={"enable_access_log": False},
            **options,
        )

    stages: dict[str, Any] = {}
    for name in slots.own:
        replicas = settings.stage_of(name).replicas
        deployment = own_deployment(name)
        own = slot(StageReplica, deployment, gpus=gpus, **how_many(replicas))
        stages[deployment] = own.bind(given, deployment, preload=True)
    if SHELF in slots.deployments:
        shelf = slot(StageReplica, SHELF, gpus=gpus, num_replicas=1)
        stages[SHELF] = shelf.bind(given, SHELF, preload=False)
    control = slot(
        Control,
        CONTROL,
        num_replicas=1,
        actor={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    )
    gateway = slot(
        ray_serve.ingress()(GatewayIngress),
        GATEWAY,
        max_replicas_per_node=settings.replicas_per_node,
        **how_many(settings.gateway_replicas if settings.replicas is None else settings.replicas),
        environment={
            **environment,
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": ingress_middleware.IMPORT_PATH,
        },
    )
    return gateway.bind(given, stages, control.bind(given, many_nodes=many_nodes), many_nodes=many_nodes)
