"""Which points are worth keeping when several figures count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

ENERGY_TOLERANCE = 0.1


@dataclass(frozen=True)
class Point:
    """What a candidate gives and costs, on the validation split.

    Attributes:
        accuracy: a fraction.
        latency_ms: p50 of one text alone.
        energy: in any one unit: Wh per 1,000 texts, or CPU-seconds where the machine's watts are unknown.
    """

    accuracy: float
    latency_ms: float
    energy: float


def dominates(one: Point, other: Point) -> bool:
    """Whether one is better than the other in accuracy or latency and worse in nothing.

    Energy is the machine's watts per busy core times CPU time, which on one thread is latency over again,
    measured with noise: a difference below ENERGY_TOLERANCE does not count as worse.
    """
    return (
        one.accuracy >= other.accuracy
        and one.latency_ms <= other.latency_ms
        and one.energy <= other.energy * (1 + ENERGY_TOLERANCE)
        and (one.accuracy > other.accuracy or one.latency_ms < other.latency_ms)
    )


def non_dominated(points: Mapping[str, Point]) -> tuple[str, ...]:
    """Return the names of the points that no other dominates, the fastest first.

    Of points that are equal in accuracy and latency the first stays.
    """
    kept: list[str] = []
    for name, point in sorted(points.items(), key=lambda item: (item[1].latency_ms, -item[1].accuracy)):
        same = any(
            (points[k].accuracy, points[k].latency_ms) == (point.accuracy, point.latency_ms) for k in kept
        )
        if not same and not any(dominates(other, point) for other in points.values()):
            kept.append(name)
    return tuple(kept)


def spread(points: Mapping[str, Point], most: int) -> tuple[str, ...]:
    """Return at most so many of the points, fastest first: those that crowd in log latency go.

    Of the two nearest neighbours the less accurate goes, but never the most accurate of all.
    """
    kept = sorted(points, key=lambda name: points[name].latency_ms)
    best = max(points, key=lambda name: points[name].accuracy) if points else ""
    while len(kept) > most:
        gaps = [
            math.log(max(points[b].latency_ms, 1e-9) / max(points[a].latency_ms, 1e-9))
            for a, b in pairwise(kept)
        ]
        if not gaps:
            break
        left = min(range(len(gaps)), key=gaps.__getitem__)
        pair = sorted((kept[left], kept[left + 1]), key=lambda name: points[name].accuracy)
        kept.remove(pair[1] if pair[0] == best else pair[0])
    return tuple(kept)
