"""Starts a peer or the gateway with given settings, and ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.gateway.environments import environment
from contract.family import Family
from contract.files import write_json
from contract.policy import single_variant_policy

PEERS = Path(__file__).parent / "peers"
REPLICA = Path(__file__).with_name("plain_replica.py")
READY_S = 90.0
CORES = psutil.cpu_count() or 1
IDLE_SHARE = 0.3
"""Of a core: a server that has all its processes up takes less than that while nobody asks it."""

Options = Mapping[str, int]
Form = Callable[[str], dict[str, Any]]


@dataclass(frozen=True)
class Server:
    """A running server: where it is asked, and in which form."""

    url: str
    form: Form


@dataclass(frozen=True)
class Places:
    """Where a comparison finds things: environments, and the model as it is handed to peers."""

    environments: Path
    model: Path


def hand_over(folder: Path, family: Family, variant: str, out: Path, max_length: int = 1 << 30) -> None:
    """Write the folder that tells a peer of one ONNX variant. Raises SystemExit for another kind."""
    found = family.variant(variant)
    encoder = family.encoders[found.encoder]
    if encoder.artifact is None or encoder.max_length is None:
        raise SystemExit(f"{variant} has no tokenizer: choose an ONNX variant of texts")
    write_json(
        out / "model.json",
        {
            "graph": str((folder / found.artifact.path).resolve()),
            "tokenizer": str((folder / encoder.artifact.path).resolve()),
            "max_length": min(encoder.max_length, max_length),
            "labels": list(family.labels),
            "temperature": found.temperature,
        },
    )


@contextmanager
def running(peer: str, options: Options, places: Places) -> Iterator[Server]:
    """Run a peer with these options until the block ends."""
    binaries = environment(peer, places.environments)
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        command, form, path = _command(peer, options, port, Path(scratch))
        environ = os.environ | {
            "PYTHONPATH": str(PEERS),
            "PEER_MODEL": str(places.model),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "BENTOML_DO_NOT_TRACK": "True",
            **{f"PEER_{name}": str(value) for name, value in options.items()},
        }
        server = Server(f"http://127.0.0.1:{port}{path}", form)
        with _process([str(binaries / command[0]), *command[1:]], environ, scratch, server):
            yield server


@contextmanager
def replica(family: Path, variant: str, rules: str) -> Iterator[Server]:
    """Run the gateway's code without Ray, a variant as its only stage, until the block ends.

    Args:
        rules: how it is batched, in JSON.
    """
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}/v1/classify", asking("cascade"))
    with tempfile.TemporaryDirectory() as scratch:
        policy = Path(scratch) / "policy.json"
        write_json(policy, single_variant_policy(variant).dump())
        command = [
            sys.executable,
            str(REPLICA),
            str(family),
            str(policy),
            f"127.0.0.1:{port}",
            "--rules",
            rules,
        ]
        environ = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with _process(command, environ, scratch, server):
            yield server


@contextmanager
def gateway(
    family: Path, policy: Path, settings: Mapping[str, Any] | None = None, model: str = "cascade"
) -> Iterator[Server]:
    """Run this project's gateway until the block ends, with settings over its own where given."""
    port, admin = free_port(), free_port()
    command = [sys.executable, "-m", "sluicegate.main", "serve", str(family.resolve())]
    command += ["--policy", str(policy.resolve()), "--port", str(port), "--admin-port", str(admin)]
    server = Server(f"http://127.0.0.1:{port}/v1/classify", asking(model))
    with tempfile.TemporaryDirectory() as scratch:
        if settings is not None:
            given = Path(scratch) / "settings.yaml"
            write_json(given, settings)
            command += ["--settings", str(given)]
        with _process(command, dict(os.environ), scratch, server):
            yield server


def asking(model: str) -> Form:
    """Return how the gateway is asked for a model."""
    return lambda text: {"inputs": text, "model": model}


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(peer: str, options: Options, port: int, scratch: Path) -> tuple[list[str], Form, str]:
    """Return how a peer is started, asked, and where."""
    workers = str(options.get("WORKERS", 1))
    if peer == "fastapi":
        command = ["uvicorn", "fastapi_peer:app", "--port", str(port), "--workers", workers]
        return [*command, "--no-access-log", "--log-level", "warning"], _inputs, "/v1/classify"
    if peer == "litserve":
        return ["python", str(PEERS / "litserve_peer.py"), str(port)], _inputs, "/v1/classify"
    if peer == "bentoml":
        command = ["bentoml", "serve", "bentoml_peer:Classifier", "--host", "127.0.0.1", "--port", str(port)]
        return command, lambda text: {"inputs": [text]}, "/v1/classify"
    if peer == "mlserver":
        write_json(
            scratch / "settings.json",
            {
                "host": "127.0.0.1",
                "http_port": port,
                "grpc_port": free_port(),
                "metrics_endpoint": None,
                "metrics_port": free_port(),
                "parallel_workers": options.get("WORKERS", 0),
                "debug": False,
                "use_structured_logging": False,
            },
        )
        batch = options.get("BATCH", 1)
        batching = {"max_batch_size": batch, "max_batch_time": 0.001} if batch > 1 else {}
        write_json(
            scratch / "model-settings.json",
            {"name": "model", "implementation": "mlserver_peer.Runtime"} | batching,
        )
        return ["mlserver", "start", str(scratch)], _infer, "/v2/models/model/infer"
    raise SystemExit(f"no such peer: {peer}")


def _inputs(text: str) -> dict[str, Any]:
    return {"inputs": text}


def _infer(text: str) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}


@contextmanager
def _process(command: list[str], environ: dict[str, str], scratch: str, server: Server) -> Iterator[None]:
    """Run a command in a session of its own; end all that it started."""
    with (Path(scratch) / "log").open("w+b") as log:
        process = subprocess.Popen(
            command, env=environ, cwd=scratch, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_it_answers(server, process)
            wait_until_idle()
            yield
        except SystemExit as problem:
            log.seek(0)
            raise SystemExit(f"{problem}\n{log.read().decode(errors='replace')[-2000:]}") from None
        finally:
            _end(process)


def _wait_until_it_answers(server: Server, process: subprocess.Popen[bytes]) -> None:
    body = json.dumps(server.form("warm")).encode()
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        try:
            request = urllib.request.Request(server.url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{server.url} never answered")


def wait_until_idle(
    most_s: float = 30.0, look: Callable[[], float] = lambda: psutil.cpu_percent(1.0) * CORES / 100
) -> bool:
    """Wait until this machine spends next to nothing for a second; return whether it came to that.

    The first of several processes answers while the others still load: whoever drives a server then
    measures their start, on the cores that the answers need, and one process in place of all.
    """
    return any(look() < IDLE_SHARE for _ in range(max(1, int(most_s))))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
