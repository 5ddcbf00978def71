"""CPU time and memory of tuning, on large tables made up."""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from bench.routing.tables import markdown
from contract.costs import Cost
from contract.predictions import Predictions, VariantPredictions
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune


def speed() -> str:
    """Return CPU time and memory of tuning large synthetic tables (one process, one core's worth of work)."""
    lines = []
    for n, names in ((50_000, ("a", "b", "c")), (1_000_000, ("a", "c"))):
        predictions, costs = synthetic(n, names)
        for certified in (True, False):
            before = time.process_time()
            result = tune(
                predictions,
                costs,
                Targets(max_accuracy_drop=0.01),
                TuneSettings(certified=certified, reference="c"),
            )
            spent = time.process_time() - before
            lines.append(
                [
                    f"{n:,}",
                    str(len(names)),
                    "certified" if certified else "uncertified",
                    result.policy.status,
                    f"{spent:.2f}",
                ]
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )
    return "\n\n".join(
        [
            "## Speed",
            "All subsets of the variants, rules per class included, ten classes.",
            markdown(["rows", "variants", "how", "result", "CPU seconds"], lines),
            f"Peak memory of the whole benchmark: {peak:,.0f} MiB.",
        ]
    )


def synthetic(n: int, names: tuple[str, ...], seed: int = 0) -> tuple[Predictions, dict[str, Cost]]:
    """Return n rows whose variants are right with a probability near their confidence.

    Their costs are 1, 4 and 15.
    """
    rng = np.random.default_rng(seed)
    classes = 10
    label = rng.integers(0, classes, n)
    hardness = rng.random(n) ** 2
    worst = {"a": 0.75, "b": 0.5, "c": 0.25}
    variants = {}
    for name in names:
        sure = np.clip(1 - worst[name] * hardness, 0.1, 1.0)
        right = rng.random(n) < sure
        prediction = np.where(right, label, (label + rng.integers(1, classes, n)) % classes)
        confidence = np.clip(sure + rng.normal(0, 0.05, n), 0.0, 1.0)
        variants[name] = VariantPredictions(prediction, confidence)
    costs = {"a": Cost(1.0), "b": Cost(4.0), "c": Cost(15.0)}
    return Predictions(tuple(range(classes)), label, variants), {name: costs[name] for name in names}
