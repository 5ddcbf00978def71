"""What more labels would be worth: the saving that they are expected to let us certify, with an interval."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy

from router.decide.scores import FloatArray, IntArray
from router.labels.certify import UNKNOWN, Certified
from router.labels.draw import Draw
from router.labels.pair import Pair, counts_above
from router.tune.trinomial import score_statistic

LIVES = 400
INTERVAL = 0.8
GROUP = 25
"""Labels, neighbours by score, whose losses are taken to be alike."""
PRIOR = (2.0, 1.0, 1.2)
"""Weight of +1, 0 and -1 before any label: that of about four labels, as on public tables."""
LOWER = 1.25
"""How many times more answers differ at the lowest threshold asked for than where a test failed."""


@dataclass(frozen=True)
class Worth:
    """What the next labels are expected to bring.

    Attributes:
        labels: how many more.
        rows: rows without a label that they take beyond those at hand; 0 where they go to rows at hand.
        now: share of the reference's cost that is certified to be saved now.
        expected: the mean of what would be certified with them.
        low, high: between which 80% of the simulated outcomes lie.
    """

    labels: int
    rows: int
    now: float
    expected: float
    low: float
    high: float


def worth_of(
    pair: Pair,
    draw: Draw,
    losses: IntArray,
    certified: Certified,
    savings: FloatArray,
    *,
    labels: int,
    epsilon: float,
    delta: float,
    seed: int = 0,
) -> Worth:
    """Return what `labels` more would be worth, by 400 simulated continuations.

    Losses to come are drawn from what the labels so far say of their neighbours by score (Dirichlet
    posteriors), and tested as the certificate is, by the score statistic's normal limit. Where every
    threshold so far passed, labels go to the next lower ones of the rows at hand; where one failed, to new
    rows above a threshold a little lower than that.

    Args:
        pair, draw, losses, certified: as in `certify`.
        savings: [J] share of the reference's cost saved at each threshold of the path.
        labels: how many more, at least 1.
        epsilon: accuracy drop.
        delta: level.
        seed: of the simulation.
    """
    rng = np.random.default_rng([seed, 2])
    known = losses[: _complete(losses)]
    differing = pair.differing()
    n = draw.n
    cells = np.diff(differing, prepend=0)
    chances = _chances(rng, draw.scores(pair)[: len(known)], known, pair.path)
    asked = counts_above(draw.scores(pair)[: len(known)], pair.path)
    here = [np.concatenate([[0], np.cumsum(known == value)])[asked] for value in (1, -1)]
    failed = bool(certified.steps) and not certified.steps[-1].passed
    if failed:
        place = certified.steps[-1].place
        lowest = int(np.searchsorted(differing, LOWER * differing[place]).clip(place, len(differing) - 1))
        rows = labels * len(pair) / max(1, differing[lowest])
        new = rng.binomial(round(rows), np.broadcast_to(cells / len(pair), (LIVES, len(cells))))
    else:
        place = certified.steps[-1].place if certified.steps else -1
        sampled = differing * draw.probability
        deeper = np.flatnonzero(sampled - (sampled[place] if place >= 0 else 0.0) <= labels)
        lowest, rows = int(deeper[-1]), 0.0
        beyond = np.arange(len(cells)) > place
        new = np.where(beyond, rng.binomial(cells, np.full((LIVES, 1), draw.probability)), 0)
        here = [np.where(beyond, counts[max(place, 0)] if place >= 0 else 0, counts) for counts in here]
    plus = rng.binomial(new, chances[0])
    minus = rng.binomial(new - plus, np.clip(chances[1] / np.maximum(1e-12, 1.0 - chances[0]), 0.0, 1.0))
    plus, minus = np.cumsum(plus, axis=1) + here[0], np.cumsum(minus, axis=1) + here[1]
    total = n + rows
    passes = score_statistic(plus, plus + minus, total, epsilon) >= scipy.stats.norm.ppf(1.0 - delta)
    passes[:, lowest + 1 :] = False
    reached = np.where(passes.all(axis=1), passes.shape[1], passes.argmin(axis=1)) - 1
    best = certified.best
    now = 0.0 if best is None else max(0.0, float(savings[best.place]))
    found = np.maximum(np.where(reached >= 0, savings[reached], 0.0), now)
    low, high = np.quantile(found, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    beyond_hand = max(0, round(rows) - (len(pair) - draw.n))
    return Worth(labels, beyond_hand, now, float(found.mean()), float(low), float(high))


def _complete(losses: IntArray) -> int:
    known = losses != UNKNOWN
    return int(known.argmin()) if not known.all() else len(losses)


def _chances(
    rng: np.random.Generator, scores: FloatArray, losses: IntArray, path: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return chances [LIVES, J] of +1 and -1 in the cell of each threshold, drawn from posteriors."""
    groups = max(1, len(losses) // GROUP)
    bounds = np.linspace(0, len(losses), groups + 1).round().astype(np.int64)
    drawn = np.empty((groups, LIVES, 3))
    for group, (first, last) in enumerate(itertools.pairwise(bounds.tolist())):
        part = losses[first:last]
        drawn[group] = rng.dirichlet(
            [weight + float((part == value).sum()) for weight, value in zip(PRIOR, (1, 0, -1), strict=True)],
            LIVES,
        )
    # The group of a cell is that of the labels around its threshold; below all labels it is the last.
    place = counts_above(scores, path)
    of_cell = np.clip(np.searchsorted(bounds, place, side="left") - 1, 0, groups - 1)
    return drawn[of_cell, :, 0].T, drawn[of_cell, :, 2].T
