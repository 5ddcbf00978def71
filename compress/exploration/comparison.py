"""Two artifacts timed in turns, for choices: what one costs as a share of what the other does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from compress.datasets.data import DATA, read_dataset
from compress.measurement.measure_step import load_made
from compress.recipes.recipe import Target
from compress.steps import Context, Result
from compress.store import Finished
from runtime.api import LoadedVariant

BLOCK = 20
LEAST_BLOCKS = 3
SETTLING_CALLS = 2


def comparison_step(context: Context) -> Result:
    """Compare what the step `artifact` made with `reference`, on the texts of the target's lengths."""
    target = Target.model_validate(context.step.config["target"])
    data = read_dataset(context.inputs["data"].file(DATA))
    with both_loaded(context, context.inputs["artifact"], data.labels, target) as (own, reference):
        texts = data.of(target.lengths).texts
        ratio = compare(own, reference, texts, seconds=target.seconds, seed=context.recipe.seed)
    return {
        "time_ratio": ratio.time,
        "cpu_ratio": ratio.cpu,
        "summary": f"{1 / ratio.time:.1f} times the speed",
    }


@contextmanager
def both_loaded(
    context: Context, made: Finished, labels: Sequence[str], target: Target
) -> Iterator[tuple[LoadedVariant, LoadedVariant]]:
    """Give an artifact and that of the step's input `reference`, loaded alike, and close them afterwards."""
    own = load_made(made, labels, target)
    try:
        reference = load_made(context.inputs["reference"], labels, target)
        try:
            yield own, reference
        finally:
            reference.runtime.close()
    finally:
        own.runtime.close()


@dataclass(frozen=True)
class Ratio:
    """What a variant costs per text, as a share of what the reference costs."""

    time: float
    cpu: float


def compare(
    own: LoadedVariant, reference: LoadedVariant, texts: Sequence[str], *, seconds: float, seed: int
) -> Ratio:
    """Time two variants on the same texts, one by one, in turns, so that a machine that slows down hits both.

    Args:
        own, reference: loaded alike.
        texts: a sample of real traffic.
        seconds: for both together; three turns are taken at least.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    end = time.perf_counter() + seconds
    wall: dict[str, list[float]] = {"own": [], "reference": []}
    cpu = dict.fromkeys(wall, 0.0)
    turns = 0
    while turns < LEAST_BLOCKS or time.perf_counter() < end:
        turns += 1
        block = [texts[row] for row in rng.integers(0, len(texts), BLOCK)]
        for name, loaded in (("reference", reference), ("own", own)):
            for text in block[:SETTLING_CALLS]:
                loaded.logits([text])
            before = time.process_time()
            wall[name] += _timed(loaded, block)
            cpu[name] += time.process_time() - before
    return Ratio(
        float(np.median(wall["own"]) / np.median(wall["reference"])),
        cpu["own"] / max(cpu["reference"], 1e-9),
    )


def _timed(loaded: LoadedVariant, texts: Sequence[str]) -> list[float]:
    found = []
    for text in texts:
        start = time.perf_counter()
        loaded.logits([text])
        found.append(time.perf_counter() - start)
    return found
