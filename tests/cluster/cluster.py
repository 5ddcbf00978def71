"""A Ray cluster on machines of a network, started as docs/cluster.md says, with the gateway on it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.network import Machine

ROOT = Path(__file__).parents[2]
PORT = 8000
ADMIN_PORT = 8001
_GCS_PORT = 6379
_RAY_S = 60.0
_DEPLOY_S = 120.0
_LOOK_S = 0.05
_NEVER = threading.Event()
"""Nobody sets it: what a cluster does has no event to wait for."""
Labels = tuple[tuple[str, str], ...]


class Cluster:
    """Nodes that run Ray; the first is the head.

    Args:
        shared: a folder that all nodes see.
        environment: beside deploy/ray.env, such as how the object store is reached.
    """

    def __init__(self, shared: Path, environment: dict[str, str]) -> None:
        token = shared / "token"
        token.touch(mode=0o600)
        token.write_text(os.urandom(32).hex())
        kept = {name: value for name, value in os.environ.items() if not _steers(name)}
        self._environment = kept | _ray_env() | environment | {"RAY_AUTH_TOKEN_PATH": str(token)}
        self.nodes: list[Machine] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def head(self) -> Machine:
        """The node with Ray's control store, the controller and the admin interface."""
        return self.nodes[0]

    def start(self, machine: Machine) -> None:
        """Start Ray on a machine: the head first, the others join it."""
        is_head = not self.nodes
        at = f"--port={_GCS_PORT}" if is_head else f"--address={self.head.address}:{_GCS_PORT}"
        command = ["ray", "start", "--block", "--disable-usage-stats", at, *(["--head"] if is_head else [])]
        command += [f"--node-ip-address={machine.address}", "--num-cpus=2", "--object-store-memory=80000000"]
        command += [f"--temp-dir={machine.disk}/ray"] if is_head else []
        command += ["--include-dashboard=false"] if is_head else []
        self.nodes.append(machine)
        self._processes.append(self._spawn(machine, command, "ray.log"))
        if is_head:
            self._wait_for_gcs()

    def deploy(self, client: Machine, **settings: Any) -> None:
        """Deploy the gateway as deploy/ray-serve.yaml does, with these settings, a proxy on every node."""
        config = yaml.safe_load((ROOT / "deploy" / "ray-serve.yaml").read_text())
        config["proxy_location"] = "EveryNode"
        given = {"host": "0.0.0.0", "port": PORT, "admin_port": ADMIN_PORT, **settings}
        config["applications"][0]["args"] = {"metrics": str(self.head.disk / "tmp"), "settings": given}
        address = f"{self.head.address}:{_GCS_PORT}"
        command = [sys.executable, "-m", "tests.cluster.deploy", address, str(len(self.nodes))]
        deploying = self._spawn(self.head, [*command, json.dumps(config)], "deploy.log")
        try:
            deploying.wait(_DEPLOY_S)
        finally:
            deploying.kill()
        assert deploying.returncode == 0, (self.head.folder / "deploy.log").read_text()[-4000:]
        wait_until(
            lambda: all(self.answers(client, node) for node in self.nodes), "every node answers", _RAY_S
        )

    def sluice(self, *words: str) -> str:
        """Run a command of `sluice` on the head; return what it writes to stdout."""
        done = subprocess.run(
            [*self.head.prefix, str(Path(sys.executable).with_name("sluice")), *words],
            env=self._environment,
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout

    def admin(self, method: str, path: str, **rest: Any) -> Any:
        """Ask the admin interface, on the head's own loopback."""
        with self.head.entered():
            url = f"http://127.0.0.1:{ADMIN_PORT}{path}"
            reply = httpx.request(method, url, timeout=40, trust_env=False, **rest)
        assert reply.is_success, reply.text
        return reply.json()

    def states(self) -> list[dict[str, Any]]:
        """Return what the gateway's replicas say of themselves."""
        found: list[dict[str, Any]] = self.admin("GET", "/state")["replicas"]
        return found

    def answers(self, client: Machine, node: Machine, policy: str | None = None) -> bool:
        """Whether a node's front door answers a text, under that policy where one is named."""
        with client.entered():
            try:
                reply = httpx.post(
                    f"http://{node.address}:{PORT}/v1/classify",
                    json={"inputs": "a text"},
                    timeout=5,
                    trust_env=False,
                )
            except httpx.HTTPError:
                return False
        return reply.status_code == 200 and policy in (None, reply.json()["policy_version"])

    def page(self, client: Machine, node: Machine) -> str:
        """Return the metrics that a node's front door shows."""
        with client.entered():
            reply = httpx.get(f"http://{node.address}:{PORT}/metrics", timeout=20, trust_env=False)
        assert reply.is_success, reply.text
        return reply.text

    def replicas_of(self, machine: Machine) -> list[int]:
        """Return the processes of gateway replicas on a machine."""
        found = []
        for pid in machine.pids():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if b"ServeReplica:sluicegate:gateway" in words:
                found.append(pid)
        return found

    def _spawn(self, machine: Machine, command: list[str], log: str) -> subprocess.Popen[bytes]:
        name, *rest = command
        program = name if Path(name).is_absolute() else str(Path(sys.executable).with_name(name))
        with (machine.folder / log).open("ab") as file:
            return subprocess.Popen(
                [*machine.prefix, program, *rest],
                env=self._environment | {"TMPDIR": str(machine.disk / "tmp")},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def _wait_for_gcs(self) -> None:
        def is_up() -> bool:
            assert self._processes[0].poll() is None, (self.head.folder / "ray.log").read_text()[-4000:]
            said = (self.head.folder / "ray.log").read_text(errors="replace")
            return "Ray runtime started" in said

        wait_until(is_up, "Ray's head is up", _RAY_S)


def wait_until(is_so: Callable[[], bool], what: str, within_s: float) -> float:
    """Look until something is so; return how long it took. Fails beyond the time."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + within_s, f"not within {within_s:g} s: {what}"
        _NEVER.wait(_LOOK_S)
    return time.monotonic() - began


def totals(pages: list[str], name: str) -> Counter[Labels]:
    """Return a counter's values by labels, added over pages."""
    found: Counter[Labels] = Counter()
    for page in pages:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name:
                    found[tuple(sorted(sample.labels.items()))] += int(sample.value)
    return found


def _ray_env() -> dict[str, str]:
    lines = (ROOT / "deploy" / "ray.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: shlex.split(value)[0] for name, _, value in pairs}


def _steers(name: str) -> bool:
    return name.startswith(("RAY_", "SERVE_", "AWS_")) or name.lower().endswith("_proxy")
