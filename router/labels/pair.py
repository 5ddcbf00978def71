"""One cheap variant before the reference, and its path of thresholds, fixed before any label is seen.

Rows are only compared here. The path, the score's temperature and the choice of the variant come from rows
that no certificate is about, so that the path is fixed for those it is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from contract.costs import Cost
from contract.errors import InputError, PredictionsError
from contract.predictions import UNLABELLED, Predictions
from router.decide.scores import BoolArray, FloatArray, IntArray
from router.tune.candidates import ESCALATE_ALL, threshold_grid
from router.tune.sample import ScoreModel, fit_scores, make_sample
from router.tune.settings import TuneSettings, checked_names, chosen_reference

PATH = 401
"""Thresholds of a path, at about as many quantiles of the scores."""
PATH_SHARE = 0.05
FEWEST, MOST = 50, 1000
"""Rows that fix the path: a share of those without a label, within these bounds."""
NET_SHARE = 0.25
"""Of differing answers, the least share by which the reference is right more often that is planned for."""
TYPICAL_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Pair:
    """N rows without a label, as a cheap variant and the reference see them.

    Attributes:
        cheap, reference: the two variants.
        model: the score, with what was fitted for it.
        rows: [N] places in the predictions table, ascending.
        scores: [N] of the cheap variant; its answer is accepted where the score is the threshold or more.
        differs: [N] whether the answers differ. Where they do not, accepting costs nothing, whatever the
            label.
        path: [J] thresholds, safest first.
        rate_at_reach: share of rows that differ above the lowest threshold in question, by the rows that
            fixed the path: that at which the drop is the one asked for, if the reference is right more often
            in a quarter of the differing answers.
        n_path: rows that the path and the score were fixed on.
    """

    cheap: str
    reference: str
    model: ScoreModel
    rows: IntArray
    scores: FloatArray
    differs: BoolArray
    path: FloatArray
    rate_at_reach: float
    n_path: int

    def __len__(self) -> int:
        return len(self.rows)

    def differing(self) -> IntArray:
        """Return [J] how many accepted answers differ from the reference's at each threshold of the path."""
        return counts_above(self.scores[self.differs], self.path)

    def escalation(self) -> FloatArray:
        """Return [J] the share of rows that escalate at each threshold of the path."""
        return np.asarray(1.0 - counts_above(self.scores, self.path) / len(self))


def counts_above(scores: FloatArray, thresholds: FloatArray) -> IntArray:
    """Return [J] how many scores are at least each threshold."""
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left"), dtype=np.int64)


def make_pair(
    predictions: Predictions,
    costs: Mapping[str, Cost],
    settings: TuneSettings,
    epsilon: float,
    *,
    cheap: str | None = None,
) -> Pair:
    """Return the pair of `cheap` (or of the variant that promises the greatest saving) and the reference.

    Rows of the split `test` are never read. Rows with a label, and those of the split `tune`, fix the path;
    where they are few, a random share of the others does.

    Raises:
        PredictionsError: nearly all rows have a label, a variant or a cost is missing. InputError: no
        variant is cheaper than the reference.
    """
    reference = chosen_reference(predictions, costs, settings).name
    names = checked_names(predictions, costs, settings, reference)
    usd = {name: costs[name].usd_per_1k for name in names}
    cheaper = [name for name in names if name != reference and usd[name] < usd[reference]]
    if cheap is not None and cheap not in cheaper:
        raise InputError(
            f"{cheap!r} is not a variant that costs less than the reference {reference!r}",
            hint=f"cheaper ones: {', '.join(cheaper) or 'none'}",
        )
    if not cheaper:
        raise InputError(
            f"no variant costs less than the reference {reference!r}, so there is nothing to accept "
            f"answers of",
            hint="--reference names another",
        )
    path_rows, rows = _parts(predictions, settings.seed)
    fixed = predictions.take(path_rows)
    candidates = [cheap] if cheap is not None else cheaper
    model = fit_scores(
        fixed, (*candidates, reference), settings.score, seed=settings.seed, reference=reference
    )
    chosen = min(candidates, key=lambda name: _hoped_usd(fixed, model, name, reference, epsilon, usd))
    scores, differs = _compared(predictions.take(rows), model, chosen, reference)
    path_scores, path_differs = _compared(fixed, model, chosen, reference)
    path = threshold_grid(path_scores, PATH)[::-1]
    path = path[path < ESCALATE_ALL]
    rates = counts_above(path_scores[path_differs], path) / len(path_scores)
    rate = min(epsilon / NET_SHARE, float(rates[-1]))
    return Pair(chosen, reference, model, rows, scores, differs, path, rate, len(path_rows))


def _parts(predictions: Predictions, seed: int) -> tuple[IntArray, IntArray]:
    """Return the rows that fix the path and those that a certificate is about, both ascending."""
    split = predictions.split
    read = np.ones(len(predictions), dtype=bool) if split is None else split != "test"
    known = predictions.label != UNLABELLED
    aside = known if split is None else known | (split == "tune")
    path, rows = np.flatnonzero(read & aside), np.flatnonzero(read & ~aside)
    if len(rows) < 2 * FEWEST:
        raise PredictionsError(
            f"{len(rows)} rows have no label (those of the splits tune and test aside); there must be at "
            f"least "
            f"{2 * FEWEST}",
            hint="where rows have labels, `sluice tune` certifies with them; labels are asked for rows whose "
            "`label` is null",
        )
    if len(path) < 2 * FEWEST:
        count = int(np.clip(PATH_SHARE * len(rows), FEWEST, MOST))
        order = np.random.default_rng([seed, 0]).permutation(len(rows))
        path, rows = np.sort(rows[order[:count]]), np.sort(rows[order[count:]])
    return path, rows


def _compared(
    predictions: Predictions, model: ScoreModel, cheap: str, reference: str
) -> tuple[FloatArray, BoolArray]:
    sample = make_sample(predictions, (cheap, reference), {cheap: 0.0, reference: 1.0}, model)
    (scores,) = model.chain_scores(sample, (0, 1))
    differs = predictions.variants[cheap].prediction != predictions.variants[reference].prediction
    return scores, np.asarray(differs)


def _hoped_usd(
    fixed: Predictions,
    model: ScoreModel,
    cheap: str,
    reference: str,
    epsilon: float,
    usd: Mapping[str, float],
) -> float:
    """Return the mean cost of a request if differing answers are wrong as often as is usual."""
    scores, differs = _compared(fixed, model, cheap, reference)
    order = np.argsort(-scores, kind="stable")
    accepted = int((np.cumsum(differs[order]) <= epsilon / TYPICAL_SHARE * len(scores)).sum())
    return usd[cheap] + (1.0 - accepted / len(scores)) * usd[reference]
