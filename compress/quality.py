"""How good a variant's answers on the test split are, with intervals, per class and per slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.data import Dataset
from contract.formulas import Interval, macro_f1, paired_difference_interval, wilson_interval

DRAWS = 1000


@dataclass(frozen=True)
class Quality:
    """Figures of one variant on one split; intervals are at 95%; the delta is paired, against the teacher."""

    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    per_class: dict[str, dict[str, float | int]]
    accuracy_per_slice: dict[str, float]
    accuracy_delta: float | None = None
    accuracy_delta_interval: Interval | None = None


def quality_of(
    data: Dataset, predicted: NDArray[np.int64], teacher: NDArray[np.int64] | None, *, seed: int
) -> Quality:
    """Return the figures of predictions [N] on N labelled texts, beside the teacher's [N] where given.

    Intervals: Wilson for accuracy, Newcombe's for the paired delta, percentile bootstrap (Efron 1979) for
    macro-F1.
    """
    targets, right = data.targets, predicted == data.targets
    delta = None if teacher is None else right.astype(float) - (teacher == targets).astype(float)
    return Quality(
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(right)),
        macro_f1=macro_f1(targets, predicted, len(data.labels)),
        macro_f1_interval=_macro_f1_interval(targets, predicted, len(data.labels), seed),
        per_class=_per_class(data, predicted),
        accuracy_per_slice={
            name: float(right[rows].mean()) for name, rows in slice_rows(data).items() if rows.any()
        },
        accuracy_delta=None if delta is None else float(delta.mean()),
        accuracy_delta_interval=(None if teacher is None else _delta_interval(right, teacher == targets)),
    )


def _delta_interval(right: NDArray[np.bool_], teacher: NDArray[np.bool_]) -> Interval:
    counts = (right & teacher, right & ~teacher, ~right & teacher, ~right & ~teacher)
    return paired_difference_interval(*(int(mask.sum()) for mask in counts))


def slice_rows(data: Dataset) -> dict[str, NDArray[np.bool_]]:
    """Return a mask [N] per slice name."""
    names = sorted({name for row in data.slices for name in row})
    return {name: np.array([name in row for row in data.slices]) for name in names}


def _macro_f1_interval(
    targets: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, seed: int
) -> Interval:
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(targets), (DRAWS, len(targets)))
    found = [macro_f1(targets[rows], predicted[rows], classes) for rows in draws]
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def _per_class(data: Dataset, predicted: NDArray[np.int64]) -> dict[str, dict[str, float | int]]:
    targets = data.targets
    found: dict[str, dict[str, float | int]] = {}
    for index, label in enumerate(data.labels):
        hits = int(((targets == index) & (predicted == index)).sum())
        n, said = int((targets == index).sum()), int((predicted == index).sum())
        found[label] = {
            "recall": hits / n if n else 0.0,
            "precision": hits / said if said else 0.0,
            "n": n,
        }
    return found
