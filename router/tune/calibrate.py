"""Calibration on the tune part: temperatures, per-class curves, the learned deferral rule, and its error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from router.decide.scores import BoolArray, FloatArray, IntArray, deferral_features

TEMPERATURE_ROWS = 5_000
KNOTS = 21
TILT = 1e-3


def fit_temperature(logits: NDArray[np.floating[Any]], labels: IntArray, *, seed: int = 0) -> float:
    """Return the temperature T with the least negative log-likelihood of labels [N] under logits [N, C] / T.

    After Guo et al. 2017. At most TEMPERATURE_ROWS rows, drawn with `seed`, are used: one parameter needs no
    more. The result lies in [0.05, 20].
    """
    if len(labels) > TEMPERATURE_ROWS:
        rows = np.random.default_rng(seed).choice(len(labels), TEMPERATURE_ROWS, replace=False)
        logits, labels = logits[rows], labels[rows]
    values = np.asarray(logits, dtype=np.float64)
    values = values - values.max(axis=1, keepdims=True)
    truth = values[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        inverse = float(np.exp(-log_temperature))
        return float((np.log(np.exp(values * inverse).sum(axis=1)) - truth * inverse).mean())

    best = scipy.optimize.minimize_scalar(
        loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-4}
    )
    return float(np.exp(best.x))


def expected_calibration_error(confidence: FloatArray, right: BoolArray, bins: int = 15) -> float:
    """Return the expected calibration error over equal-width bins (Naeini et al. 2015).

    It is the count-weighted mean of |accuracy - confidence|.
    """
    slot = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(slot, minlength=bins)
    gaps = np.abs(np.bincount(slot, confidence, bins) - np.bincount(slot, right, bins))
    return float(gaps.sum() / max(1, count.sum()))


def fit_per_class(
    confidence: FloatArray,
    predicted: IntArray,
    right: BoolArray,
    labels: Sequence[str],
    min_count: int,
    shrinkage: float,
) -> dict[str, Any]:
    """Return the parameters of P(right | predicted class, confidence): increasing curves, by class.

    The pooled curve is isotonic regression of `right` on binned confidence; a class with at least `min_count`
    rows gets its own, every bin shrunk towards the pooled value as if by `shrinkage` pseudo-rows spread over
    the bins.
    """
    inner = np.unique(np.quantile(confidence, np.linspace(0, 1, KNOTS)[1:-1]))
    knots = np.unique(np.concatenate([[0.0], inner, [1.0]]))
    slot = np.clip(np.searchsorted(knots, confidence, side="right") - 1, 0, len(knots) - 2)
    bins = len(knots) - 1
    count = np.bincount(slot, minlength=bins).astype(np.float64)
    hits = np.bincount(slot, right, bins)
    overall = (hits.sum() + 1) / (count.sum() + 2)
    pooled = (hits + overall) / (count + 1)
    classes = {}
    for index, label in enumerate(labels):
        mine = predicted == index
        if int(mine.sum()) < min_count:
            continue
        own_count = np.bincount(slot[mine], minlength=bins)
        own_hits = np.bincount(slot[mine], right[mine], bins)
        prior = shrinkage / bins
        total = own_count.astype(np.float64) + prior
        classes[label] = _curve((own_hits + prior * pooled) / total, total, knots)
    return {"knots": knots.tolist(), "default": _curve(pooled, count + 1, knots), "classes": classes}


def _curve(rates: FloatArray, weights: FloatArray, knots: FloatArray) -> list[float]:
    """Return values at the knots: the isotonic bin rates at the bins' middles, interpolated.

    A slight tilt keeps the order of confidences.
    """
    rising = np.asarray(scipy.optimize.isotonic_regression(rates, weights=weights).x, dtype=np.float64)
    middles = (knots[:-1] + knots[1:]) / 2
    values = np.interp(knots, middles, rising)
    return [float(v) for v in (1 - TILT) * values + TILT * knots]


def fit_deferral(
    confidence: FloatArray,
    predicted: IntArray,
    right: BoolArray,
    next_right: BoolArray,
    labels: Sequence[str],
    min_count: int,
) -> dict[str, Any]:
    """Return the parameters of the learned deferral rule: two ridge logistic models.

    Their features are log-odds, confidence and predicted class. After Jitkrittum et al. 2023 ("When does
    confidence-based cascade deferral suffice?"): defer by the estimated gain P(next right) - P(this right).
    Classes with fewer than `min_count` rows share the common bias.
    """
    count = np.bincount(predicted, minlength=len(labels) + 1)[: len(labels)]
    kept = np.flatnonzero(count >= min_count)
    slot = np.full(len(labels) + 1, len(kept), dtype=np.int64)
    slot[kept] = np.arange(len(kept))
    group = slot[predicted]
    features = deferral_features(confidence)
    result = {}
    for side, target in (("own", right), ("next", next_right)):
        weights, bias, extra = _fit_logistic(features, group, len(kept), target.astype(np.float64))
        class_bias = {labels[index]: float(extra[place]) for place, index in enumerate(kept.tolist())}
        result[side] = {"weights": weights.tolist(), "bias": bias, "class_bias": class_bias}
    return result


def _fit_logistic(
    features: FloatArray, group: IntArray, groups: int, target: FloatArray
) -> tuple[FloatArray, float, FloatArray]:
    """Minimise the mean log-loss plus 5 / n times the squared class biases.

    A `group` equal to `groups` has no bias of its own.
    """
    n, width = features.shape
    penalty = 5.0 / n

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        extra = np.append(theta[width + 1 :], 0.0)
        z = features @ theta[:width] + theta[width] + extra[group]
        residual = 1.0 / (1.0 + np.exp(-np.clip(z, -60, 60))) - target
        value = float(np.mean(np.logaddexp(0.0, z) - target * z)) + penalty * float(extra @ extra)
        by_group = np.bincount(group, residual, groups + 1)[:groups] / n
        gradient = np.concatenate(
            [
                features.T @ residual / n + 1e-6 * theta[:width],
                [residual.mean()],
                by_group + 2 * penalty * extra[:-1],
            ]
        )
        return value + 5e-7 * float(theta[:width] @ theta[:width]), gradient

    found = scipy.optimize.minimize(
        loss, np.zeros(width + 1 + groups), jac=True, method="L-BFGS-B", options={"maxiter": 200}
    )
    theta = np.asarray(found.x)
    return theta[:width], float(theta[width]), theta[width + 1 :]
