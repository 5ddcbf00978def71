"""The process that owns Ray for one run. The launcher starts it in the run folder, all switches set.

It tells the launcher how far it is, one JSON object a line, on the file descriptor that it is given; it ends,
with everything that it started, on SIGTERM and when the launcher is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import psutil
import ray
from ray import serve as ray_serve

from contract.errors import EnvironmentProblem
from runtime.machine import core_count
from serve.local.front_end.frontend import Address
from serve.local.front_end.install import installed_front_end, last_words
from serve.local.ray_environment import CONTROL_FOLDER, RAY_FOLDER
from serve.local.room import OBJECT_STORE_BYTES, shares_memory
from serve.local.run_folder import MARK, remove_run
from serve.ray import grpc_ingress
from serve.ray.all_replicas import APPLICATION
from serve.ray.deployments import drain, make_application
from serve.stages.loading import Assignment

_LOOK_EVERY_S = 0.1
_DRAINING_SHARE = 0.6
"""Of the time to stop; ending Serve, HAProxy and Ray takes the rest."""


def main() -> None:
    """Start, say ready, wait for the end, stop."""
    folder = Path(os.environ[MARK])
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_text())
    launcher = os.getppid()
    os.set_inheritable(int(sys.argv[2]), False)  # the run's lock: held as long as this process lives
    stop = threading.Event()
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as pipe:

        def say(event: str, **more: Any) -> None:
            pipe.write(json.dumps({"event": event, **more}) + "\n")

        try:
            assignment.check_package()
            _start(folder, assignment, stop, say)
        except Exception as problem:
            words = last_words(folder / CONTROL_FOLDER)
            haproxy = f"\nHAProxy said last: {words}" if words else ""
            say("failed", message=f"{type(problem).__name__}: {problem}"[:4000] + haproxy)
            raise
        ready = not stop.is_set()
        if ready:
            say("ready")
    owned = _rays_own()
    while not stop.wait(_LOOK_EVERY_S) and os.getppid() == launcher:
        if ready and not all(map(_lives, owned)):
            # Without them nothing that could be drained or asked to end is left; the launcher starts anew.
            sys.stderr.write("Ray's own processes have ended\n")
            sys.stderr.flush()
            os._exit(1)
    asyncio.run(_stop_serve(assignment.settings.stop_timeout_s * _DRAINING_SHARE if ready else None))
    ray.shutdown()
    if os.getppid() != launcher:
        remove_run(folder)


def _rays_own() -> list[psutil.Process]:
    """Return the processes without which there is no Ray, and whose end a driver may never notice."""
    names = {"raylet", "gcs_server"}
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # Ray starts and ends others
            if child.name() in names:
                found.append(child)
    return found


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def _stop_serve(drain_s: float | None) -> None:
    """Drain, then end Serve: in one event loop, to which the handle that drains is bound until the end."""
    if drain_s is not None:
        await drain(drain_s)
    ray_serve.shutdown()


def _start(folder: Path, assignment: Assignment, stop: threading.Event, say: Any) -> None:
    settings = assignment.settings
    say("progress", message="starting Ray")
    ray.init(
        address="local",
        num_cpus=max(2, core_count()),
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _plasma_directory=None if shares_memory() else str(folder),
        _temp_dir=str(folder / RAY_FOLDER),
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    say("progress", message="starting HAProxy and the controller")
    ray_serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": settings.port},
        grpc_options=grpc_ingress.options(settings.grpc_port),
    )
    say("progress", message="loading variants")
    ray_serve.run(make_application(assignment, folder / "metrics"), name=APPLICATION, route_prefix="/")
    until = time.monotonic() + settings.ready_timeout_s
    for place in installed_front_end().asked_at:
        if not _ready_at(place, settings.port, until, stop):
            raise EnvironmentProblem(
                f"the gateway was not ready within {settings.ready_timeout_s:g} s "
                f"({place}, port {settings.port})"
            )
        if settings.grpc_port is not None and not _grpc_ready_at(place, settings.grpc_port, until, stop):
            raise EnvironmentProblem(
                f"gRPC was not ready within {settings.ready_timeout_s:g} s "
                f"({place}, port {settings.grpc_port})"
            )


def _grpc_ready_at(place: Address, port: int, until: float, stop: threading.Event) -> bool:
    """Return whether HAProxy has a replica for gRPC by then; by TLS it is taken to have one."""
    if installed_front_end().tls is not None:
        return True
    target = f"[{place}]:{port}" if place.is_v6 else f"{place}:{port}"
    with grpc.insecure_channel(target) as channel:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        while not stop.is_set() and time.monotonic() < until:
            try:
                live(b"", timeout=5)
            except grpc.RpcError:
                stop.wait(_LOOK_EVERY_S)
            else:
                return True
    return stop.is_set()


def _connection(place: Address, port: int) -> HTTPConnection:
    """Return a connection to the front end, which this machine knows without looking at its certificate."""
    if installed_front_end().tls is None:
        return HTTPConnection(str(place), port, timeout=5)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(str(place), port, timeout=5, context=context)


def _ready_at(place: Address, port: int, until: float, stop: threading.Event) -> bool:
    """Return whether the gateway says there that it is ready, by then; also true when it is to stop."""
    while time.monotonic() < until:
        connection = _connection(place, port)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        if stop.wait(_LOOK_EVERY_S):
            return True
    return False
