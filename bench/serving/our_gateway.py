"""The gateway's own code in one process under plain uvicorn, one variant inline: what is left without Ray.

python bench/serving/our_gateway.py FAMILY VARIANT PORT ['{"run_in": "loop"}']
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from contract.family import read_family
from contract.policy import single_variant_policy
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


def make(folder: Path, name: str, rules: BatchRules) -> Gateway:
    """Return the gateway with that variant as its only stage."""
    family = read_family(folder)
    telemetry = Telemetry()
    stage = InlineStage(load_variant(folder, family, name), rules, telemetry, turn=LoopTurn())
    policy = single_variant_policy(name)
    snapshot = Snapshot(1, policy, compile_policy(policy, family.labels), family, {name: stage})
    limits = RequestLimits()
    dataplane = DataPlane(lambda: snapshot, limits, telemetry)
    return Gateway(dataplane, limits, telemetry, lambda: telemetry.render(1, policy))


if __name__ == "__main__":
    gateway = make(
        Path(sys.argv[1]), sys.argv[2], BatchRules.model_validate_json(" ".join(sys.argv[4:]) or "{}")
    )
    uvicorn.run(
        gateway,
        http=connections_to(gateway.hot),
        port=int(sys.argv[3]),
        log_level="warning",
        access_log=False,
    )
