"""One gateway replica without Ray whose only stage answers at once and does nothing: what HTTP alone costs.

python bench/gateway/constant_replica.py FAMILY PORT
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from contract.family import read_family
from contract.policy import single_variant_policy
from router.decide.cascade import compile_policy
from runtime.api import Logits
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.http.connection import connections_to
from serve.settings.limits import RequestLimits
from serve.telemetry.metrics import Telemetry
from serve.types.stage import Snapshot


class Constant:
    """A stage that says the same of every text."""

    def __init__(self, variant: str, classes: int) -> None:
        self.variant = variant
        self._row = np.linspace(0, 5, classes, dtype=np.float32)[None]

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits:  # noqa: ARG002
        """Answer."""
        return self._row if len(texts) == 1 else np.repeat(self._row, len(texts), axis=0)

    async def logits(self, texts: Sequence[str], *terms: Any) -> Logits:  # noqa: ARG002
        """Answer."""
        return self.logits_now(texts, None)

    async def ready(self) -> bool:
        """Always."""
        return True


if __name__ == "__main__":
    family = read_family(Path(sys.argv[1]), verify=False)
    name = family.variants[0].name
    policy = single_variant_policy(name)
    telemetry = Telemetry()
    stages = {name: Constant(name, len(family.labels))}
    snapshot = Snapshot(1, policy, compile_policy(policy, family.labels), family, stages)
    limits = RequestLimits()
    gateway = Gateway(DataPlane(lambda: snapshot, limits, telemetry), limits, telemetry, bytes)
    uvicorn.run(
        gateway,
        http=connections_to(gateway.hot),
        port=int(sys.argv[2]),
        log_level="warning",
        access_log=False,
    )
