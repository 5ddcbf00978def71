"""What clients will wait for a cascade: quantiles of a request's time, from those of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from router.decide.scores import BoolArray, FloatArray

GRID = 4_000
PREDICTED = {"latency_p50_ms": 0.5, "latency_p99_ms": 0.99}

Quantiles = Mapping[float, float]
"""Milliseconds of one variant's answers, by the share of them that take no longer."""


def predicted_latency(ran: BoolArray, stages: Sequence[Quantiles]) -> dict[str, float | None]:
    """Return p50 and p99 of a request alone, in ms; None where a stage that ran has no quantiles.

    Requests that went through the same stages are one part of a mixture, weighted by their number. The time
    of a part is the sum of its stages' quantiles, as if all its stages were slow together: no less than where
    they are slow at different times. Queues are not in it.

    Args:
        ran: [N, S] whether a stage ran for a request.
        stages: [S] quantiles of each; between two of them times go straight, beyond they stay.
    """
    grid = (np.arange(GRID) + 0.5) / GRID
    times, weights = [], []
    for path, count in zip(*np.unique(ran, axis=0, return_counts=True), strict=True):
        used = [stages[stage] for stage in np.flatnonzero(path).tolist()]
        if not all(used):
            return dict.fromkeys(PREDICTED)
        times.append(sum((_at(grid, one) for one in used), np.zeros(GRID)))
        weights.append(np.full(GRID, count / (len(ran) * GRID)))
    all_times = np.concatenate(times)
    order = np.argsort(all_times, kind="stable")
    reached = np.cumsum(np.concatenate(weights)[order])
    places = np.minimum(np.searchsorted(reached, list(PREDICTED.values()), side="left"), len(order) - 1)
    return {name: float(all_times[order[place]]) for name, place in zip(PREDICTED, places, strict=True)}


def _at(shares: FloatArray, quantiles: Quantiles) -> FloatArray:
    known = sorted(quantiles.items())
    return np.interp(shares, [share for share, _ in known], [ms for _, ms in known])
