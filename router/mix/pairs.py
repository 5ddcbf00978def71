"""What is certified with cells: one cheaper variant before the reference, and its loss row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from contract.costs import Cost
from contract.errors import InputError, PredictionsError
from contract.predictions import Predictions
from router.decide.scores import FloatArray, IntArray
from router.tune.settings import TuneSettings, checked_names, chosen_reference
from router.tune.targets import Targets

LEGAL = ("max_accuracy_drop", "max_answered_error", "max_disagreement", "max_local_disagreement")
ESCALATE_ALL = 2.0


@dataclass(frozen=True)
class Asked:
    """The one target: its metric, its epsilon, and whether labels tell the loss or the reference."""

    metric: str
    epsilon: float
    labelled: bool


@dataclass(frozen=True, eq=False)
class Pair:
    """A variant before the reference on N rows: what it says, how surely, and the loss of that, each [N]."""

    variant: str
    predicted: IntArray
    score: FloatArray
    loss: IntArray


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every pair there is, on the rows that certify, with the level that each of them may use."""

    reference: str
    why: str
    asked: Asked
    rows: Predictions
    pairs: tuple[Pair, ...]
    level: float


def pairs_of(
    predictions: Predictions, costs: Mapping[str, Cost], targets: Targets, settings: TuneSettings
) -> Pairs:
    """Return each variant cheaper than the reference before it, on all rows that are not for tests.

    Nothing is tuned, so no row is spent on it; the pairs share the level, delta, among them.

    Raises:
        InputError: more than the one target, or a setting that cells do not go with.
        PredictionsError: labels or cheaper variants are missing.
    """
    against = chosen_reference(predictions, costs, settings)
    names = checked_names(predictions, costs, settings, against.name)
    rows = _rows(predictions)
    asked = _asked(targets, settings, rows)
    if asked.labelled:
        rows = rows.take(rows.label >= 0)
    usd = costs[against.name].usd_per_1k
    cheaper = [name for name in names if costs[name].usd_per_1k < usd]
    if not cheaper:
        raise PredictionsError(
            f"no variant costs less than the reference {against.name!r}, so there is nothing to route to"
        )
    reference = rows.variants[against.name]
    found = []
    for name in cheaper:
        variant = rows.variants[name]
        if asked.metric == "accuracy_drop" and asked.labelled:
            loss = rows.correct(against.name).astype(np.int64) - rows.correct(name)
        elif asked.labelled:
            loss = (~rows.correct(name)).astype(np.int64)
        else:
            loss = (variant.prediction != reference.prediction).astype(np.int64)
        found.append(Pair(name, variant.prediction, variant.confidence, loss))
    level = (1.0 - settings.confidence) / len(found)
    return Pairs(against.name, against.why, asked, rows, tuple(found), level)


def _rows(predictions: Predictions) -> Predictions:
    if predictions.split is None:
        return predictions
    present = [name for name in ("tune", "certify") if (predictions.split == name).any()]
    if not present:
        raise PredictionsError("the table has neither tune nor certify rows")
    return predictions.rows_of(*present)


def _asked(targets: Targets, settings: TuneSettings, rows: Predictions) -> Asked:
    given = {name: value for name in LEGAL if (value := getattr(targets, name)) is not None}
    flags = ", ".join("--" + name.replace("_", "-") for name in LEGAL)
    others = (targets.min_accuracy, targets.max_f1_drop)
    more = any(value is not None for value in others) or targets.max_recall_drop or targets.max_slice_drop
    if len(given) != 1 or more or targets.budgets() or targets.objective != "cheapest":
        raise InputError("cells are certified for one target alone", hint=f"give one of {flags}")
    other = settings.score != "max_probability" or settings.gears or settings.abstain
    if not settings.certified or other or (settings.max_stages or 2) < 2:
        raise InputError(
            "cells go with a certificate by max_probability, of one variant before the reference",
            hint="leave out --uncertified, --score, --gears, --abstain and --max-stages 1, or leave out "
            "--cells and --max-share",
        )
    ((name, epsilon),) = given.items()
    if not 0.0 < epsilon < 1.0:
        raise InputError(f"the target {name} is {epsilon:g}; with cells it must lie between 0 and 1")
    labelled = bool((rows.label >= 0).any()) and "disagreement" not in name
    metric = name.removeprefix("max_")
    if not labelled and metric == "accuracy_drop":
        metric = "disagreement"
    return Asked(metric, epsilon, labelled)
