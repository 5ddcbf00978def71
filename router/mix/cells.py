"""Cells by score, or by predicted class and score: how they are drawn, and which of them pass.

Bands are drawn from scores and predicted classes alone, before a label is read, so the rows that certify are
all rows. Each cell's loss is then tested on its own rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contract.mix import Cell, Mix
from router.decide.scores import FloatArray, IntArray
from router.mix.bounds import p_value, upper_bound
from router.mix.pairs import ESCALATE_ALL, Pair, Pairs

By = Literal["class", "score"]
LEAST, WIDE = 3, 8
"""A band holds so many times the rows with which a cell without any loss passes: enough for a few losses."""
FEW_BANDS, MOST_BANDS = 6, 40
COVERED = 0.8


@dataclass(frozen=True)
class Certified:
    """What passed: the cells, thresholds by predicted class, and the one for all others.

    p_value is the largest among the accepted cells, in units of delta; None where none is accepted.
    """

    mix: Mix
    threshold: float
    per_class: dict[str, float]
    p_value: float | None


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows whose predicted classes share thresholds; `labels` None is all classes not named elsewhere."""

    labels: tuple[str, ...] | None
    rows: IntArray
    cuts: tuple[float, ...]

    @property
    def name(self) -> str:
        """What the group is called."""
        return "any other class" if self.labels is None else self.labels[0]


def least_rows(epsilon: float, level: float) -> int:
    """Return with how many rows a cell without any loss passes at `level`: ln(level) / ln(1 - epsilon)."""
    return math.ceil(math.log(level) / math.log1p(-epsilon))


def chosen_by(pairs: Pairs, by: Literal["class", "score", "auto"]) -> By:
    """Return what tells cells: classes where most rows are of one with rows enough, else scores."""
    if by != "auto":
        return by
    least = LEAST * least_rows(pairs.asked.epsilon, pairs.level / 4)
    counts = np.bincount(pairs.pairs[0].predicted[pairs.pairs[0].predicted >= 0])
    own = counts[counts >= least]
    return "class" if len(own) > 1 and own.sum() >= COVERED * len(pairs.rows) else "score"


def certify_cells(pairs: Pairs, pair: Pair, by: By) -> Certified:
    """Return which cells of a pair pass at epsilon, and the bounds of all.

    Half of the level tests: per group of classes from the surest band down, each at the group's part of the
    level, until one fails (fixed-sequence testing). The other half bounds every cell's mean loss, each at its
    part. Both hold together, so a cell that passed is bounded by the smaller of its bound and epsilon.
    """
    labels = tuple(str(label) for label in pairs.rows.labels)
    groups = _groups(pairs, pair, by, labels)
    level = pairs.level / 2 / len(groups)
    every = sum(len(group.cuts) - 1 for group in groups)
    cells: list[Cell] = []
    thresholds: dict[str | None, float] = {}
    worst: float | None = None
    for group in groups:
        threshold, open_ = ESCALATE_ALL, True
        for band, (high, low) in enumerate(zip(group.cuts, group.cuts[1:], strict=False), 1):
            inside = group.rows[(pair.score[group.rows] >= low) & (pair.score[group.rows] < high)]
            plus, minus = int((pair.loss[inside] > 0).sum()), int((pair.loss[inside] < 0).sum())
            p = p_value(plus, minus, len(inside), pairs.asked.epsilon, level)
            open_ = open_ and p <= level
            bound = upper_bound(plus, minus, len(inside), pairs.level / 2 / every)
            if open_:
                threshold = low
                worst = max(worst or 0.0, p / level)
            cells.append(
                Cell(
                    name=f"{group.name}, band {band}",
                    labels=group.labels,
                    low=low,
                    high=high,
                    n=len(inside),
                    plus=plus,
                    minus=minus,
                    share=len(inside) / max(1, len(pair.score)),
                    accepted=open_,
                    bound=min(pairs.asked.epsilon, bound) if open_ else 0.0,
                    answered=float(open_),
                )
            )
        for label in group.labels or (None,):
            thresholds[label] = threshold
    default = thresholds.pop(None, ESCALATE_ALL)
    per_class = {str(label): value for label, value in thresholds.items() if value != default}
    seen = set(np.unique(pair.predicted[pair.predicted >= 0]).tolist())
    if default < ESCALATE_ALL:
        per_class |= {name: ESCALATE_ALL for index, name in enumerate(labels) if index not in seen}
    mix = Mix(
        by=by,
        variant=pair.variant,
        epsilon=pairs.asked.epsilon,
        delta=round(pairs.level, 12),
        cells=tuple(cells),
    )
    return Certified(mix, default, per_class, worst)


def _groups(pairs: Pairs, pair: Pair, by: By, labels: Sequence[str]) -> list[_Group]:
    counts = np.bincount(pair.predicted[pair.predicted >= 0], minlength=len(labels))
    classes: list[int] = []
    if by == "class":
        level = pairs.level / 2 / max(1, int((counts > 0).sum()))
        least = LEAST * least_rows(pairs.asked.epsilon, level)
        classes = np.flatnonzero(counts >= least).tolist()
    level = pairs.level / 2 / (len(classes) + 1)
    fewest = least_rows(pairs.asked.epsilon, level)
    found = []
    for index in classes:
        rows = np.flatnonzero(pair.predicted == index)
        found.append(_Group((labels[index],), rows, _cuts(pair.score[rows], fewest)))
    rest = np.flatnonzero(~np.isin(pair.predicted, classes))
    if len(rest) or not found:
        found.append(_Group(None, rest, _cuts(pair.score[rest], fewest)))
    return found


def _cuts(score: FloatArray, fewest: int) -> tuple[float, ...]:
    """Return the borders of bands of one size, highest first; the last may have up to twice as many rows.

    A border lies midway between two scores that occur. The first is above, the last below every score.
    """
    size = max(LEAST * fewest, min(WIDE * fewest, len(score) // FEW_BANDS), -(-len(score) // MOST_BANDS))
    ordered = np.sort(score)[::-1]
    cuts, start = [ESCALATE_ALL], 0
    while len(ordered) - start >= 2 * size:
        place = start + size
        while place < len(ordered) and ordered[place] == ordered[place - 1]:
            place += 1
        if place >= len(ordered):
            break
        cuts.append(float(ordered[place - 1] + ordered[place]) / 2)
        start = place
    return (*cuts, 0.0)
