"""What finding the family of a request costs: a data plane alone, as the only family, and as one of several.

python -m bench.several_families
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from contract.policy import single_variant_policy
from router.decide.cascade import compile_policy
from runtime.fake_family import write_fake_family
from serve.dataplane.family_planes import FamilyPlanes
from serve.dataplane.plane import DataPlane
from serve.settings.limits import RequestLimits
from serve.types.messages import ClassifyRequest
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot

CALLS, ROUNDS = 100, 4000


class AtOnce:
    """A stage that answers at once, and does nothing for it."""

    variant = "fake-small"

    def __init__(self, classes: int) -> None:
        self._logits = np.eye(1, classes, dtype=np.float32)

    def logits_now(self, *_: object) -> object:
        """Return the same answer always."""
        return self._logits


def plane_of(folder: Path, name: str) -> DataPlane:
    """Return the plane of a family whose only stage answers at once."""
    family = write_fake_family(folder / name, rows=60, name=name)
    policy = single_variant_policy("fake-small")
    stage = AtOnce(len(family.labels))
    compiled = compile_policy(policy, family.labels)
    snapshot = Snapshot(1, policy, compiled, family, dict.fromkeys(family.names, stage))  # type: ignore[arg-type]
    return DataPlane(lambda: snapshot, RequestLimits(), NoRecorder(), name)


def least_us(begin: Callable[[ClassifyRequest], object], model: str) -> float:
    """Return the least microseconds of a request, over rounds of many: other work only adds to it."""
    found = float("inf")
    for _ in range(ROUNDS):
        requests = [ClassifyRequest(model, ["a"], None, 0.0) for _ in range(CALLS)]
        started = time.perf_counter()
        for request in requests:
            begin(request)
        found = min(found, time.perf_counter() - started)
    return found / CALLS * 1e6


def main() -> None:
    """Print one line per case."""
    with tempfile.TemporaryDirectory() as scratch:
        planes = {name: plane_of(Path(scratch), name) for name in ("news", "mood", "topic")}
    alone, several = FamilyPlanes(), FamilyPlanes()
    alone.serve({"news": planes["news"]})
    several.serve(planes)
    for words, begin, model in (
        ("a plane by itself", planes["news"].begin, "cascade"),
        ("as the only family", alone.begin, "cascade"),
        ("as one of three, by NAME", several.begin, "topic"),
        ("as one of three, by NAME/VARIANT", several.begin, "topic/fake-small"),
    ):
        print(f"{words:34} {least_us(begin, model):6.2f} us")


if __name__ == "__main__":
    main()
