"""Macro-F1 against a reference: its linear form for searching, and a p-value for any number of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from router.decide.scores import FloatArray, IntArray
from router.tune.sample import Sample

BETS = np.geomspace(0.01, 1.0, 8)
BOX_SHARE = 0.2
MOST_ROWS = 10_000_000


def f1_influence(sample: Sample, answers: IntArray, at: IntArray) -> FloatArray:
    """Return [N]: each row's part in macro-F1 if answered by `answers`, linearised where answers are `at`.

    The mean is macro-F1 there. F1_c = 2 T_c / (A_c + P_c); with S_c = A_c + P_c its derivative in T is 2 /
    S_c, and in A or P it is -F1_c / S_c.
    """
    n, classes = len(sample), sample.classes
    label = np.where(sample.label < 0, classes, sample.label)
    hit = label == at
    true = np.bincount(label[hit], minlength=classes + 1)[:classes]
    size = (np.bincount(label, minlength=classes + 1) + np.bincount(at, minlength=classes + 1))[:classes]
    present = size > 0
    scale = np.zeros(classes + 1)
    scale[:classes][present] = n / (size[present] * present.sum())
    f1 = np.zeros(classes + 1)
    f1[:classes][present] = 2 * true[present] / size[present]
    base = float(f1[:classes][present].mean()) if present.any() else 0.0
    mine = label == answers
    part = 2 * mine * scale[label] - f1[label] * scale[label] - f1[answers] * scale[answers]
    return np.asarray(base + part)


@dataclass(frozen=True, eq=False)
class F1Counts:
    """All that a comparison of two columns of answers by F1 needs of n labelled rows.

    Attributes:
        classes: [K] the classes averaged over.
        label, reference, answer, rows: [D] each kind of row on which the two differ, and how many there are.
        union_reference, true_reference, union_answer, true_answer: [C + 1] per class, rows of or called the
        class, and rows rightly called it.
    """

    n: int
    classes: IntArray
    label: IntArray
    reference: IntArray
    answer: IntArray
    rows: FloatArray
    union_reference: FloatArray
    true_reference: FloatArray
    union_answer: FloatArray
    true_answer: FloatArray

    def times(self, factor: float) -> F1Counts:
        """Return the counts of `factor` times as many rows of the same kind."""
        grown = {
            name: getattr(self, name) * factor
            for name in ("rows", "union_reference", "true_reference", "union_answer", "true_answer")
        }
        return F1Counts(**{**self.__dict__, **grown, "n": round(self.n * factor)})


def f1_counts(
    label: IntArray, reference: IntArray, answer: IntArray, size: int, classes: tuple[int, ...]
) -> F1Counts:
    """Count labelled rows [n]; answers are class indices, `size` where outside the label set."""
    differ = reference != answer
    code = (label[differ] * (size + 1) + reference[differ]) * (size + 1) + answer[differ]
    kinds, rows = np.unique(code, return_counts=True)
    rest, said = np.divmod(kinds, size + 1)
    true_of, by_reference = np.divmod(rest, size + 1)

    def per_class(of: IntArray) -> tuple[FloatArray, FloatArray]:
        true = np.bincount(label[label == of], minlength=size + 1)
        union = np.bincount(label, minlength=size + 1) + np.bincount(of, minlength=size + 1) - true
        return union.astype(np.float64), true.astype(np.float64)

    return F1Counts(
        len(label),
        np.asarray(classes, dtype=np.int64),
        true_of,
        by_reference,
        said,
        rows.astype(np.float64),
        *per_class(reference),
        *per_class(answer),
    )


def f1_p_value(counts: F1Counts, epsilon: float, delta: float) -> float:
    """Return the p-value of H0: mean over `classes` of F1(reference) - F1(answers) >= epsilon, for any n.

    With S_c the share labelled c plus the share answered c, and theta_c the reference's F1, the drop is the
    mean of a row's value W = sum over c of (2 (t' - t) - theta_c (s' - s)) / (K S_c), zero where both agree
    (t, s: hit and count of the class in that row; primes: the reference). theta and S are unknown: exact
    Clopper-Pearson bounds hold all of them with probability 1 - beta, and the bet on E[W] < epsilon with a
    mixture of fixed stakes is taken at the worst of that box, so p = beta + 1 / wealth (Berger and Boos
    1994). beta is a fifth of delta.
    """
    beta, size = BOX_SHARE * delta, len(counts.classes)
    if counts.n == 0 or size == 0:
        return 1.0
    level = beta / (6 * size)
    low_theta, high_theta, _, _ = _box(counts.union_reference, counts.true_reference, counts.n, level)
    _, _, low_size, high_size = _box(counts.union_answer, counts.true_answer, counts.n, level)
    averaged = np.zeros(len(low_theta), dtype=bool)
    averaged[counts.classes] = True
    if (low_size[averaged] <= 0.0).any():
        return 1.0

    gained = np.where(averaged, (2 - low_theta) / np.where(averaged, low_size, 1.0), 0.0) / size
    regained = np.where(averaged, (2 - high_theta) / high_size, 0.0) / size
    blamed = np.where(averaged, high_theta / np.where(averaged, low_size, 1.0), 0.0) / size
    unblamed = np.where(averaged, low_theta / high_size, 0.0) / size
    by_reference = np.where(
        counts.reference == counts.label, gained[counts.reference], -unblamed[counts.reference]
    )
    by_answer = np.where(counts.answer == counts.label, -regained[counts.answer], blamed[counts.answer])
    worst = float(gained.max() + blamed.max())
    bets = BETS[BETS * (worst - epsilon) < 1.0]
    if len(bets) == 0:
        return 1.0
    agreeing = counts.n - counts.rows.sum()
    wealth = agreeing * np.log1p(bets * epsilon) + (
        counts.rows * np.log1p(bets[:, None] * (epsilon - by_reference - by_answer))
    ).sum(axis=1)
    top = float(wealth.max())
    mixture = top + math.log(float(np.exp(wealth - top).sum()) / len(BETS))
    return min(1.0, beta + math.exp(-max(0.0, mixture)))


def f1_needed_n(counts: F1Counts, epsilon: float, delta: float) -> int | None:
    """Return about how many rows like these `f1_p_value` needs to pass; None where no number is enough."""
    factor = 1.1
    low, factors = 10.0 / max(1, counts.n), []
    while low * counts.n <= MOST_ROWS:
        factors.append(low)
        low *= factor
    found = next((f for f in factors if f1_p_value(counts.times(f), epsilon, delta) <= delta), None)
    return None if found is None else math.ceil(1.2 * found * counts.n)


def _box(
    union: FloatArray, true: FloatArray, n: int, level: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return bounds [C + 1] below and above of F1 = 2J / (1 + J) and of S = u (1 + J).

    J is the share of `true` in `union`, u the share of `union` in all rows.
    """
    low_share, high_share = _exact(true, union, level)
    low_union, high_union = _exact(union, np.full_like(union, n), level)
    return (
        2 * low_share / (1 + low_share),
        2 * high_share / (1 + high_share),
        low_union * (1 + low_share),
        high_union * (1 + high_share),
    )


def _exact(events: FloatArray, n: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Return the Clopper-Pearson bounds, each missing with probability `level` at most."""
    with np.errstate(invalid="ignore"):
        low = np.where(
            events <= 0, 0.0, scipy.stats.beta.ppf(level, np.maximum(events, 1e-9), n - events + 1)
        )
        high = np.where(
            events >= n, 1.0, scipy.stats.beta.ppf(1 - level, events + 1, np.maximum(n - events, 1e-9))
        )
    return np.asarray(low), np.asarray(high)
