"""Scores: the numbers that a stage compares with its threshold, from logits or a given confidence.

Every score lies in [0, 1] and a higher score means a surer answer, so `score >= threshold` accepts whatever
the score's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.probabilities import softmax

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

BASIC_SCORES = ("max_probability", "margin", "entropy")
FITTED_SCORES = ("per_class", "deferral")
SCORE_NAMES = (*BASIC_SCORES, *FITTED_SCORES, "agreement")
NEEDS_LOGITS = frozenset({"margin", "entropy"})


@dataclass(frozen=True, slots=True)
class Scored:
    """What one stage knows of a batch: predicted class, calibrated confidence and score, each [N]."""

    predicted: IntArray
    confidence: FloatArray
    score: FloatArray


@dataclass(slots=True)
class ScoredOne:
    """What one stage knows of one text."""

    predicted: int
    confidence: float
    score: float

    def as_arrays(self) -> Scored:
        """Return it as a batch of one."""
        return Scored(np.array([self.predicted]), np.array([self.confidence]), np.array([self.score]))


def score_one(logits: NDArray[np.floating[Any]], temperature: float) -> ScoredOne:
    """Return the largest of the probabilities of logits [C], bit for bit as `softmax` of a batch has it.

    The same operations on one axis: an array of one row costs a request more than its arithmetic.
    """
    scaled: FloatArray = np.divide(logits, temperature, dtype=np.float64)
    scaled -= scaled[scaled.argmax()]
    np.exp(scaled, out=scaled)
    scaled /= np.add.reduce(scaled)
    predicted = int(scaled.argmax())
    confidence = float(scaled[predicted])
    return ScoredOne(predicted, confidence, confidence)


def max_probability(probabilities: FloatArray) -> FloatArray:
    """Return the largest probability of each row: [N, C] -> [N] (Chow's rule)."""
    return np.asarray(probabilities.max(axis=1))


def margin(probabilities: FloatArray) -> FloatArray:
    """Return the largest less the second largest probability: [N, C] -> [N]; a single class has margin 1."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def entropy(probabilities: FloatArray) -> FloatArray:
    """Return 1 - H(p) / log C, so that 1 is certain and 0 is uniform: [N, C] -> [N]."""
    classes = probabilities.shape[1]
    if classes < 2:
        return np.ones(len(probabilities))
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return np.asarray(np.clip(1.0 + (probabilities * logs).sum(axis=1) / np.log(classes), 0.0, 1.0))


def agreement(confidence: FloatArray, predicted: IntArray, earlier: IntArray | None) -> FloatArray:
    """Return the agreement score [N]: (earlier stages of one answer + confidence) / (earlier stages + 1).

    `earlier` [N, k] holds the classes that the stages before this one predicted. Any vote more outranks every
    confidence, and confidence orders rows of equal votes (agreement-based cascading).
    """
    if earlier is None or earlier.shape[1] == 0:
        return confidence
    votes = (earlier == predicted[:, None]).sum(axis=1)
    return np.asarray((votes + confidence) / (earlier.shape[1] + 1))


def basic_score(name: str, logits: NDArray[np.floating[Any]], temperature: float | None = None) -> FloatArray:
    """Return the score `name` (one of BASIC_SCORES) of logits [N, C] at `temperature` (none is 1): [N]."""
    probabilities = softmax(logits, temperature or 1.0)
    if name == "margin":
        return margin(probabilities)
    if name == "entropy":
        return entropy(probabilities)
    return max_probability(probabilities)


@dataclass(frozen=True, slots=True)
class PerClassCurve:
    """P(right | predicted class, confidence) as one increasing piecewise-linear curve per class.

    knots [K] are confidences; curves [C + 1, K] are the values there. The last row is the pooled curve, which
    serves unknown classes.
    """

    knots: FloatArray
    curves: FloatArray

    def __call__(self, confidence: FloatArray, predicted: IntArray) -> FloatArray:
        """Return calibrated scores [N] by linear interpolation.

        A class of -1 or beyond the known ones uses the pooled curve.
        """
        rows = np.where(
            (predicted >= 0) & (predicted < len(self.curves) - 1), predicted, len(self.curves) - 1
        )
        right = np.clip(np.searchsorted(self.knots, confidence, side="right"), 1, len(self.knots) - 1)
        left = right - 1
        span = self.knots[right] - self.knots[left]
        share = np.clip((confidence - self.knots[left]) / span, 0.0, 1.0)
        return np.asarray(self.curves[rows, left] * (1 - share) + self.curves[rows, right] * share)


@dataclass(frozen=True, slots=True)
class DeferralRule:
    """Learned deferral: score = (1 + P(this right) - P(next right)) / 2.

    Both probabilities come from logistic models of the log-odds and the class: weights [2] and class biases
    [C + 1] (last: any other class) for this stage and for the next.
    """

    own_weights: FloatArray
    own_bias: FloatArray
    next_weights: FloatArray
    next_bias: FloatArray

    def __call__(self, confidence: FloatArray, predicted: IntArray) -> FloatArray:
        """Return deferral scores [N] in [0, 1]: 1/2 means that escalating gains nothing on average."""
        features = deferral_features(confidence)
        rows = np.where(
            (predicted >= 0) & (predicted < len(self.own_bias) - 1), predicted, len(self.own_bias) - 1
        )
        own = _sigmoid(features @ self.own_weights + self.own_bias[rows])
        other = _sigmoid(features @ self.next_weights + self.next_bias[rows])
        return np.asarray((1.0 + own - other) / 2.0)


def deferral_features(confidence: FloatArray) -> FloatArray:
    """Return the features [N, 2] of the learned rule.

    They are the confidence's log-odds, clipped at 7, and the confidence itself.
    """
    clipped = np.clip(confidence, 1e-3, 1 - 1e-3)
    return np.stack([np.log(clipped / (1 - clipped)), confidence], axis=1)


def _sigmoid(values: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -60.0, 60.0))))


def scorer_from_parameters(
    name: str, parameters: Mapping[str, Any], labels: Sequence[str]
) -> PerClassCurve | DeferralRule:
    """Rebuild a fitted scorer from a stage's `score_parameters`.

    Classes without an entry use the `default` entry.
    """
    position = {label: index for index, label in enumerate(labels)}
    if name == "per_class":
        knots = np.asarray(parameters["knots"], dtype=np.float64)
        curves = np.tile(np.asarray(parameters["default"], dtype=np.float64), (len(labels) + 1, 1))
        for label, values in parameters["classes"].items():
            if label in position:
                curves[position[label]] = values
        return PerClassCurve(knots, curves)
    sides = []
    for side in ("own", "next"):
        entry = parameters[side]
        bias = np.full(len(labels) + 1, float(entry["bias"]))
        for label, value in entry["class_bias"].items():
            if label in position:
                bias[position[label]] += value
        sides.append((np.asarray(entry["weights"], dtype=np.float64), bias))
    return DeferralRule(sides[0][0], sides[0][1], sides[1][0], sides[1][1])
