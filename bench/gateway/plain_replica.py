"""One gateway replica without Ray: the same code under plain uvicorn, with every stage inside.

python bench/gateway/plain_replica.py FAMILY POLICY SOCKET... [--rules JSON]

A SOCKET is HOST:PORT, HOST:PORT:shared (SO_REUSEPORT) or the path of a Unix socket.
"""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import uvicorn

from contract.family import read_family
from contract.policy import read_policy
from router.decide.cascade import compile_policy
from runtime.load import load_variant
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.http.connection import connections_to
from serve.settings.limits import RequestLimits
from serve.settings.stages import BatchRules
from serve.stages.inline import InlineStage
from serve.stages.loop_turn import LoopTurn
from serve.telemetry.metrics import Telemetry
from serve.types.stage import Snapshot

AT_ONCE_MS = 1.0


def make(folder: Path, policy_path: Path, rules: BatchRules | None) -> Gateway:
    """Return the gateway with every stage of the policy in this process.

    Args:
        rules: how each is batched; None: as a replica does it.
    """
    family, policy = read_family(folder, verify=False), read_policy(policy_path)
    telemetry, turn = Telemetry(), LoopTurn()
    stages = {}
    for stage in policy.stages:
        latency = family.variant(stage.variant).latency_at()
        quick = latency is not None and latency.p50_ms < AT_ONCE_MS
        stages[stage.variant] = InlineStage(
            load_variant(folder, family, stage.variant),
            rules or BatchRules(run_in="loop" if quick else "thread"),
            telemetry,
            turn=turn if quick or rules else None,
        )
    snapshot = Snapshot(1, policy, compile_policy(policy, family.labels), family, stages)
    limits = RequestLimits()
    dataplane = DataPlane(lambda: snapshot, limits, telemetry)
    return Gateway(dataplane, limits, telemetry, lambda: telemetry.render(1, policy))


def listener(where: str) -> socket.socket:
    """Return a socket that is bound there."""
    if where.startswith("/"):
        found = socket.socket(socket.AF_UNIX)
        found.bind(where)
        return found
    host, port, *shared = where.split(":")
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind((host, int(port)))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("family", type=Path)
    parser.add_argument("policy", type=Path)
    parser.add_argument("sockets", nargs="+")
    parser.add_argument("--rules", type=BatchRules.model_validate_json, help="how each stage is batched")
    given = parser.parse_args()
    gateway = make(given.family, given.policy, given.rules)
    config = uvicorn.Config(
        gateway, http=connections_to(gateway.hot), lifespan="off", log_level="warning", access_log=False
    )
    uvicorn.Server(config).run(sockets=[listener(where) for where in given.sockets])
