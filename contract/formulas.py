"""Formulas used in more than one place: intervals, quantiles, cost, energy, Pareto sets."""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of a proportion (Wilson 1927, equation for p).

    Raises:
        ValueError: unless 0 <= successes <= n, n >= 1 and 0 < confidence < 1.
    """
    if not 0 <= successes <= n or n < 1 or not 0 < confidence < 1:
        raise ValueError("wilson_interval needs 0 <= successes <= n, n >= 1 and 0 < confidence < 1")
    low, high = _wilson(successes / n, n, confidence)
    return 0.0 if successes == 0 else low, 1.0 if successes == n else high


def paired_counts(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return how often both of two masks [N] hold, the first alone, the second alone, and neither."""
    cells = (first & second, first & ~second, ~first & second, ~first & ~second)
    both, first_only, second_only, neither = (int(mask.sum()) for mask in cells)
    return both, first_only, second_only, neither


def paired_difference_interval(
    both: float, first_only: float, second_only: float, neither: float, confidence: float = 0.95
) -> Interval:
    """Return the interval of a difference of paired proportions (Newcombe 1998, method 10).

    The four counts say how often both succeed, one alone, or neither; the difference is first less second.
    Built from two Wilson intervals, so that it has a width even where no pair differs.

    Raises:
        ValueError: for negative counts, or when all are 0.
    """
    n = both + first_only + second_only + neither
    if min(both, first_only, second_only, neither) < 0 or n <= 0:
        raise ValueError("paired_difference_interval needs counts of 0 or more, and one above 0")
    first, second = both + first_only, both + second_only
    agree = both * neither - first_only * second_only
    spread = math.sqrt(first * (n - first) * second * (n - second))
    phi = 0.0 if spread == 0 else (max(agree - n / 2, 0.0) if agree > 0 else agree) / spread
    (low_1, high_1), (low_2, high_2) = (_wilson(count / n, n, confidence) for count in (first, second))
    p_1, p_2 = first / n, second / n

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = p_1 - p_2
    return difference - reach(p_1 - low_1, high_2 - p_2), difference + reach(p_2 - low_2, high_1 - p_1)


def _wilson(p: float, n: float, confidence: float) -> Interval:
    z = float(scipy.special.ndtri(0.5 + confidence / 2))
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def exact_quantile(samples: ArrayLike, q: float) -> float:
    """Return the smallest sample that at least a fraction q of the samples do not exceed.

    Raises:
        ValueError: when there are no samples or q is outside (0, 1].
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    if ordered.size == 0 or not 0 < q <= 1:
        raise ValueError("exact_quantile needs samples and 0 < q <= 1")
    return float(ordered[max(0, math.ceil(q * ordered.size - 1e-9) - 1)])


def quantile_interval(samples: ArrayLike, q: float, confidence: float = 0.95) -> Interval | None:
    """Return the distribution-free interval of a quantile by order statistics (David and Nagaraja 2003, 7.1).

    The binomial(n, q) law bounds how many samples lie below the true quantile. Samples must be
    independent; queueing correlates latencies, so repeat runs as well. None when n is too small for
    a two-sided interval at that confidence (368 for p99 at 95%).
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = ordered.size
    if n == 0:
        return None
    tail = (1 - confidence) / 2
    low = int(scipy.stats.binom.ppf(tail, n, q))
    high = int(scipy.stats.binom.ppf(1 - tail, n, q)) + 1
    if low < 1 or high > n:
        return None
    return float(ordered[low - 1]), float(ordered[high - 1])


def macro_f1(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> float:
    """Return the unweighted mean of the per-class F1, over the classes that occur in labels or predictions.

    Shapes: labels and predictions [N], class indices; a prediction outside 0..classes-1 is wrong for all.
    """
    hit = labels == predictions
    true = np.bincount(labels[hit], minlength=classes)
    actual = np.bincount(labels, minlength=classes)
    said = np.bincount(predictions[(predictions >= 0) & (predictions < classes)], minlength=classes)
    present = (actual + said) > 0
    if not present.any():
        return 0.0
    return float(np.mean(2 * true[present] / (actual + said)[present]))


def usd_per_1k(usd_per_hour: float, replicas: float, goodput_per_s: float) -> float:
    """Return 1000 x price per hour x replicas / (3600 x goodput per second); infinite without goodput."""
    if goodput_per_s <= 0:
        return math.inf
    return 1000.0 * usd_per_hour * replicas / (3600.0 * goodput_per_s)


def usd_per_1k_from_seconds(unit_seconds_per_1k: float, usd_per_unit_hour: float) -> float:
    """Return the price of the core- or GPU-seconds that 1,000 inferences take."""
    return unit_seconds_per_1k * usd_per_unit_hour / 3600.0


def wh_per_1k(joules: float, n: int) -> float:
    """Return watt-hours per 1,000 of n inferences that took some joules in all."""
    if n < 1:
        raise ValueError("wh_per_1k needs n >= 1")
    return joules / 3600.0 * 1000.0 / n


def gco2e(wh: float, grid_g_per_kwh: float) -> float:
    """Return grams of CO2-equivalent of an amount of energy at a grid intensity."""
    return wh / 1000.0 * grid_g_per_kwh


def dominators(costs: ArrayLike) -> NDArray[np.bool_]:
    """Return [N, N]: whether row j dominates row i of [N, K], every column to be minimised.

    A row is dominated when another is no worse on every column and better on one; equals do not dominate.
    """
    table = np.asarray(costs, dtype=np.float64)
    own, other = table[:, None, :], table[None, :, :]
    return np.asarray((other <= own).all(axis=2) & (other < own).any(axis=2))


def pareto_mask(costs: ArrayLike) -> NDArray[np.bool_]:
    """Return which rows of [N, K] nothing dominates, every column to be minimised; equals all stay."""
    table = np.asarray(costs, dtype=np.float64)
    if not len(table):
        return np.ones(0, dtype=bool)
    return np.asarray(~dominators(table).any(axis=1))
