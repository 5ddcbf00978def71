"""How good a variant's answers on the test split are, with intervals, per class and per slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.datasets.data import Dataset
from contract.family import SliceQuality
from contract.formulas import Interval, macro_f1, paired_counts, paired_difference_interval, wilson_interval

DRAWS = 1000


@dataclass(frozen=True)
class Quality:
    """Figures of one variant on one split; intervals are at 95%; deltas are paired, against the teacher."""

    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    per_class: dict[str, dict[str, float | int]]
    per_slice: dict[str, SliceQuality]
    accuracy_delta: float | None = None
    accuracy_delta_interval: Interval | None = None
    macro_f1_delta: float | None = None
    macro_f1_delta_interval: Interval | None = None


def quality_of(
    data: Dataset, predicted: NDArray[np.int64], teacher: NDArray[np.int64] | None, *, seed: int
) -> Quality:
    """Return the figures of predictions [N] on N labelled texts, beside the teacher's [N] where given.

    Intervals: Wilson for accuracy, Newcombe's for its paired delta, percentile bootstrap (Efron 1979) for
    macro-F1 and its delta, where variant and teacher are judged on the same draws.
    """
    targets, right = data.targets, predicted == data.targets
    draws = np.random.default_rng(seed).integers(0, len(targets), (DRAWS, len(targets)))
    own = _macro_f1s(data, predicted, draws)
    found = Quality(
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(right)),
        macro_f1=macro_f1(targets, predicted, len(data.labels)),
        macro_f1_interval=_middle(own),
        per_class=_per_class(data, predicted, teacher),
        per_slice={
            name: _slice_quality(right[rows], None if teacher is None else (teacher == targets)[rows])
            for name, rows in slice_rows(data).items()
            if rows.any()
        },
    )
    if teacher is None:
        return found
    return Quality(
        **{
            **vars(found),
            "accuracy_delta": _delta(right, teacher == targets),
            "accuracy_delta_interval": _delta_interval(right, teacher == targets),
            "macro_f1_delta": found.macro_f1 - macro_f1(targets, teacher, len(data.labels)),
            "macro_f1_delta_interval": _middle(own - _macro_f1s(data, teacher, draws)),
        }
    )


def slice_rows(data: Dataset) -> dict[str, NDArray[np.bool_]]:
    """Return a mask [N] per slice name."""
    names = sorted({name for row in data.slices for name in row})
    return {name: np.array([name in row for row in data.slices]) for name in names}


def _slice_quality(right: NDArray[np.bool_], teacher: NDArray[np.bool_] | None) -> SliceQuality:
    return SliceQuality(
        n=len(right),
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(right)),
        accuracy_delta=None if teacher is None else _delta(right, teacher),
        accuracy_delta_interval=None if teacher is None else _delta_interval(right, teacher),
    )


def _delta(right: NDArray[np.bool_], teacher: NDArray[np.bool_]) -> float:
    return (int(right.sum()) - int(teacher.sum())) / len(right)


def _delta_interval(right: NDArray[np.bool_], teacher: NDArray[np.bool_]) -> Interval:
    return paired_difference_interval(*paired_counts(right, teacher))


def _macro_f1s(data: Dataset, predicted: NDArray[np.int64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    targets = data.targets
    return np.array([macro_f1(targets[rows], predicted[rows], len(data.labels)) for rows in draws])


def _middle(values: NDArray[np.float64]) -> Interval:
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def _per_class(
    data: Dataset, predicted: NDArray[np.int64], teacher: NDArray[np.int64] | None
) -> dict[str, dict[str, float | int]]:
    """Return the figures of every class; one without rows has no recall."""
    targets = data.targets
    found: dict[str, dict[str, float | int]] = {}
    for index, label in enumerate(data.labels):
        rows = targets == index
        hits, n, said = (
            int((predicted[rows] == index).sum()),
            int(rows.sum()),
            int((predicted == index).sum()),
        )
        found[label] = {"precision": hits / said if said else 0.0, "n": n}
        if n:
            found[label]["recall"] = hits / n
        if n and teacher is not None:
            base = int((teacher[rows] == index).sum())
            found[label]["recall_delta"] = (hits - base) / n
    return found
