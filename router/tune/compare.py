"""Comparisons for people and plots: deferral curves of all scores, and the trade-off of cost and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from contract.costs import Cost
from contract.errors import PolicyError, PredictionsError
from contract.predictions import Predictions
from router.decide.scores import SCORE_NAMES, FloatArray
from router.tune.sample import Sample, by_cost, fit_scores, make_sample
from router.tune.settings import TuneSettings, checked_names, chosen_reference, labelled_rows, split_parts

POINTS = 101


@dataclass(frozen=True)
class ScoreCurve:
    """A deferral curve: accuracy when the least sure share of `variant`'s answers goes to `reference`.

    Attributes:
        rates, accuracies: [101] escalated share and accuracy; rows of equal score escalate together in
        expectation. area: mean accuracy over escalation rates from 0 to 1; larger is better.
        missing: why there is no curve (then the lists are empty and the area is None).
    """

    score: str
    variant: str
    reference: str
    rates: tuple[float, ...] = ()
    accuracies: tuple[float, ...] = ()
    area: float | None = None
    missing: str | None = None

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def compare_scores(
    predictions: Predictions, costs: Mapping[str, Cost], settings: TuneSettings | None = None
) -> tuple[ScoreCurve, ...]:
    """Return the deferral curves of every score, and of an oracle, for each variant but the reference.

    Only variants cheaper than the reference have one. It is drawn on the tune part alone: what a score needs
    is fitted on one half of it and the curve drawn on the other, both ways, and the mean of the two shown, so
    that the rows for the certificate stay unread. A score that needs logits where there are none is listed
    with the reason.

    Raises:
        PredictionsError: a variant or its cost is missing, or there are too few labelled rows.
        InputError: a setting out of range.
    """
    given = replace(settings or TuneSettings(), certified=True)
    reference = chosen_reference(predictions, costs, given).name
    names = checked_names(predictions, costs, given, reference)
    tune_part, _ = split_parts(predictions, given)
    tune_part = labelled_rows(tune_part, "tune")
    if len(tune_part) < 2:
        raise PredictionsError("comparing scores takes two labelled rows to tune on, one for each half")
    shuffled = np.random.default_rng(given.seed).permutation(len(tune_part))
    halves = [tune_part.take(np.sort(rows)) for rows in np.array_split(shuffled, 2)]
    ordered = by_cost(names, costs, tune_part)
    there = _curves(halves[0], halves[1], ordered, reference, costs, given.seed)
    back = _curves(halves[1], halves[0], ordered, reference, costs, given.seed)
    return tuple(_mean(one, other) for one, other in zip(there, back, strict=True))


def _curves(
    fitted_on: Predictions,
    drawn: Predictions,
    ordered: tuple[str, ...],
    reference: str,
    costs: Mapping[str, Cost],
    seed: int,
) -> list[ScoreCurve]:
    usd = {name: costs[name].usd_per_1k for name in ordered}
    last = ordered.index(reference)
    cheaper = [v for v in range(len(ordered)) if v != last and usd[ordered[v]] <= usd[reference]]
    curves: list[ScoreCurve] = []
    for score in SCORE_NAMES:
        try:
            model = fit_scores(fitted_on, ordered, score, seed=seed)
        except PolicyError as problem:
            curves += [ScoreCurve(score, ordered[v], reference, missing=problem.rule) for v in cheaper]
            continue
        sample = make_sample(drawn, ordered, usd, model)
        for variant in cheaper:
            chain: tuple[int, ...] = (variant, last)
            if score == "agreement":
                if variant == cheaper[0]:
                    why = "agreement needs an earlier stage"
                    curves.append(ScoreCurve(score, ordered[variant], reference, missing=why))
                    continue
                chain = (*[v for v in cheaper if v < variant], variant, last)
            values = model.chain_scores(sample, chain)[-1]
            curves.append(_curve(score, sample, variant, last, values))
            if score == "max_probability":
                gain = sample.right[variant].astype(np.float64) - sample.right[last]
                curves.append(_curve("oracle", sample, variant, last, gain))
    return curves


def _mean(one: ScoreCurve, other: ScoreCurve) -> ScoreCurve:
    if one.area is None or other.area is None:
        return one if one.area is None else other
    both = zip(one.accuracies, other.accuracies, strict=True)
    return replace(one, accuracies=tuple((a + b) / 2 for a, b in both), area=(one.area + other.area) / 2)


def _curve(score: str, sample: Sample, variant: int, last: int, values: FloatArray) -> ScoreCurve:
    order = np.argsort(values, kind="stable")
    gain = (sample.right[last].astype(np.float64) - sample.right[variant])[order]
    _, start, count = np.unique(values[order], return_index=True, return_counts=True)
    by_tie = np.add.reduceat(gain, start) / count
    total = np.concatenate([[0.0], np.cumsum(np.repeat(by_tie, count))]) / len(sample)
    shares = np.arange(len(sample) + 1) / len(sample)
    rates = np.linspace(0.0, 1.0, POINTS)
    accuracy = float(sample.right[variant].mean()) + np.interp(rates, shares, total)
    return ScoreCurve(
        score=score,
        variant=sample.names[variant],
        reference=sample.names[last],
        rates=tuple(rates.tolist()),
        accuracies=tuple(accuracy.tolist()),
        area=float(sample.right[variant].mean() + total.mean()),
    )
