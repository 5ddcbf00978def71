"""What the families of several seeds say together: accuracy, paired differences, speed, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.compression.timing import Timing
from contract.family import Family
from contract.predictions import PREDICTIONS
from tables.predictions import read_predictions

DRAWS = 2000
CHOSEN_ON = ("tune", "certify")


@dataclass(frozen=True)
class Prediction:
    """What a latency table said of the INT8 copy of a pruned network.

    Attributes:
        whole: the INT8 copy of the network that was pruned.
        p50_ms, whole_p50_ms: of the two, at the time that the table was measured.
    """

    whole: str
    p50_ms: float
    whole_p50_ms: float

    @property
    def times_as_fast(self) -> float:
        """Predicted speed-up against the whole network."""
        return self.whole_p50_ms / self.p50_ms


@dataclass(frozen=True)
class Seed:
    """One family.

    Attributes:
        seed: of the recipe.
        family: its manifest.
        chosen, test: who was right where: [N] per variant, on the rows to choose with and on the test split.
        timings: of every variant.
        predictions: of the latency tables, by name of the INT8 copy.
    """

    seed: int
    family: Family
    chosen: Mapping[str, NDArray[np.bool_]]
    test: Mapping[str, NDArray[np.bool_]]
    timings: Mapping[str, Timing]
    predictions: Mapping[str, Prediction]


@dataclass(frozen=True)
class Line:
    """A variant over S seeds.

    Attributes:
        accuracy: mean on the test split; `per_seed` [S] are its parts.
        validation: mean on the rows that choices were made on.
        drop: against the base, mean over seeds of the paired difference; positive is worse.
        drop_interval: 95%, bootstrap over test rows (Efron 1979), every row with all its seeds.
        speed_up, speed_up_interval: base's latency by this one's; mean over seeds, extremes of the seeds'.
    """

    name: str
    accuracy: float
    per_seed: tuple[float, ...]
    validation: float
    drop: float
    drop_interval: tuple[float, float]
    speed_up: float
    speed_up_interval: tuple[float, float]
    p50_ms: float
    p99_ms: float
    megabytes: float
    energy_wh_per_1k: float
    training_s: float


def read_seed(
    seed: int,
    folder: Path,
    family: Family,
    timings: Mapping[str, Timing],
    predictions: Mapping[str, Prediction],
) -> Seed:
    """Return what one family folder shows."""
    table = read_predictions(folder / PREDICTIONS)
    assert table.split is not None
    chosen, test = np.isin(table.split, CHOSEN_ON), table.split == "test"
    right = {name: found.prediction == table.label for name, found in table.variants.items()}
    return Seed(
        seed=seed,
        family=family,
        chosen={name: rows[chosen] for name, rows in right.items()},
        test={name: rows[test] for name, rows in right.items()},
        timings=timings,
        predictions=predictions,
    )


def compare(seeds: Sequence[Seed], name: str, base: str) -> Line:
    """Return a variant beside a base of the same seeds. Every seed has the same test rows in one order."""
    own = np.array([seed.test[name] for seed in seeds], dtype=float)
    other = np.array([seed.test[base] for seed in seeds], dtype=float)
    losses = (other - own).mean(axis=0)
    draws = np.random.default_rng(0).integers(0, losses.size, (DRAWS, losses.size))
    low, high = np.quantile(losses[draws].mean(axis=1), [0.025, 0.975])
    ratios = [seed.timings[name].times_as_fast(seed.timings[base]) for seed in seeds]
    variants = [seed.family.variant(name) for seed in seeds]
    return Line(
        name=name,
        accuracy=float(own.mean()),
        per_seed=tuple(own.mean(axis=1).tolist()),
        validation=float(np.mean([seed.chosen[name].mean() for seed in seeds])),
        drop=float(losses.mean()),
        drop_interval=(float(low), float(high)),
        speed_up=float(np.mean(ratios)),
        speed_up_interval=(min(ratios), max(ratios)),
        p50_ms=float(np.mean([seed.timings[name].p50_ms for seed in seeds])),
        p99_ms=float(np.mean([seed.timings[name].p99_ms for seed in seeds])),
        megabytes=float(np.mean([v.artifact.bytes for v in variants])) / 1e6,
        energy_wh_per_1k=float(np.mean([v.energy_wh_per_1k or np.nan for v in variants])),
        training_s=float(np.mean([v.training.seconds if v.training else np.nan for v in variants])),
    )


def curve(lines: Sequence[Line], *, apart: float = 1.1) -> list[Line]:
    """Return lines that none beats in both validation accuracy and latency, the slowest first.

    As many as there can be with neighbours at least `apart` times in latency: each is the slowest that is
    far enough from the one before.
    """
    best: list[Line] = []
    for line in sorted(lines, key=lambda item: (item.p50_ms, -item.validation)):
        if not best or line.validation > best[-1].validation:
            best.append(line)
    found: list[Line] = []
    for line in reversed(best):
        if not found or line.p50_ms * apart <= found[-1].p50_ms:
            found.append(line)
    return found
