"""A part of the traffic that may grow: thresholds that hold whatever its share is, up to a stated one.

The part is told by true label (or by a slice of the data), such as texts that are out of scope: no cell that
can be seen while serving tells them for certain, so inside every such cell their share grows with the
traffic's. Assumed is that texts of the part, and texts of the rest, stay what they were (label shift).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contract.errors import InputError, PredictionsError
from contract.mix import Cell, Mix
from contract.predictions import Predictions
from router.decide.scores import BoolArray, FloatArray
from router.mix.bounds import Counts, grown_p_value, grown_passes, p_value
from router.mix.pairs import ESCALATE_ALL, Pair, Pairs

RUNGS = 200


@dataclass(frozen=True)
class Grown:
    """What passed: the two cells, the threshold (2 where nothing did), and the p-value."""

    mix: Mix
    threshold: float
    p_value: float | None


@dataclass(frozen=True)
class Growing:
    """Which part may grow, the label or slice's name, and to which share of the traffic."""

    name: str
    most: float


def part_of(rows: Predictions, growing: Growing) -> BoolArray:
    """Return the mask [N] of the rows of the part.

    Raises:
        InputError: no label and no slice is called so. PredictionsError: it has no row, or every row.
    """
    if not 0.0 < growing.most <= 1.0:
        raise InputError(
            f"the share of {growing.name!r} is {growing.most:g}; it must be above 0 and at most 1"
        )
    names = [str(label) for label in rows.labels]
    if growing.name in names:
        mask = rows.label == names.index(growing.name)
    elif growing.name in rows.slices:
        mask = rows.slices[growing.name]
    else:
        raise InputError(
            f"{growing.name!r} is neither a label nor a slice of the data",
            hint=f"labels: {', '.join(names[:20])}; slices: {', '.join(rows.slices) or 'none'}",
        )
    if not mask.any() or mask.all():
        which = "every" if mask.any() else "no"
        raise PredictionsError(
            f"{which} row that certifies is of {growing.name!r}, so nothing tells what its share does",
            hint="add labelled rows of it, or of the others",
        )
    return np.asarray(mask)


def certify_share(pairs: Pairs, pair: Pair, growing: Growing) -> Grown:
    """Return the cheapest threshold of a pair that holds at every share of the part from 0 to `most`.

    The mean loss is linear in the share, so both ends are enough; a rung passes when each falls at the level
    (an intersection-union test, Berger 1982: no level is shared). The rungs are quantiles of the scores,
    drawn before a label is read, and are tested from the safest on until one fails.
    """
    part = part_of(pairs.rows, growing)
    epsilon, level = pairs.asked.epsilon, pairs.level
    threshold = ESCALATE_ALL
    for rung in rungs(pair.score):
        grown, rest = _counts(pair, part, rung), _counts(pair, ~part, rung)
        falls = p_value(*rest, epsilon, level) <= level
        if not (falls and grown_passes(grown, rest, growing.most, epsilon, level)):
            break
        threshold = rung
    return _grown(pairs, pair, part, growing, threshold)


def rungs(score: FloatArray) -> list[float]:
    """Return thresholds midway between scores that occur, highest first, at about RUNGS quantiles."""
    distinct = np.unique(score)[::-1]
    if len(distinct) < 2:
        return [0.0]
    ordered = np.sort(score)[::-1]
    wanted = ordered[np.linspace(0, len(ordered) - 1, RUNGS).astype(np.int64)]
    places = np.unique(np.minimum(np.searchsorted(-distinct, -wanted), len(distinct) - 2))
    return [*((distinct[places] + distinct[places + 1]) / 2).tolist(), 0.0]


def _counts(pair: Pair, part: BoolArray, threshold: float) -> Counts:
    loss = pair.loss[part & (pair.score >= threshold)]
    return int((loss > 0).sum()), int((loss < 0).sum()), int(part.sum())


def _grown(pairs: Pairs, pair: Pair, part: BoolArray, growing: Growing, threshold: float) -> Grown:
    cells = []
    accepts = threshold < ESCALATE_ALL
    p = None
    if accepts:
        grown, rest = _counts(pair, part, threshold), _counts(pair, ~part, threshold)
        p = grown_p_value(grown, rest, growing.most, pairs.asked.epsilon)
        p = max(p, p_value(*rest, pairs.asked.epsilon, pairs.level))
    for name, labels, mask in ((growing.name, (growing.name,), part), ("the others", None, ~part)):
        plus, minus, n = _counts(pair, mask, threshold)
        cells.append(
            Cell(
                name=name,
                labels=labels,
                n=n,
                plus=plus,
                minus=minus,
                share=n / len(part),
                accepted=accepts,
                bound=None,
                answered=float((pair.score[mask] >= threshold).mean()),
            )
        )
    mix = Mix(
        by="label",
        variant=pair.variant,
        epsilon=pairs.asked.epsilon,
        delta=round(pairs.level, 12),
        cells=tuple(cells),
        most=growing.most,
    )
    return Grown(mix, threshold, p)
