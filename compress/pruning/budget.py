"""Which width every half layer gets within a time budget: dynamic programming, and a search over its weights.

Kurtic, Frantar and Alistarh 2023, "ZipLM", section 3.2. Pure arithmetic: what a width costs in time comes
from a latency table, what it costs in accuracy from the layers, and how good a whole network is from a score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.errors import RecipeError

BUCKETS = 2000
LEAST_MS = 1e-12
MUTATED = 0.25
SPREAD = 0.7
PATIENCE = 20

Allocation = tuple[int, ...]


@dataclass(frozen=True)
class Options:
    """What one half layer can be: option k takes times_ms[k] and has errors[k]; both [K], in any order."""

    times_ms: NDArray[np.float64]
    errors: NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """The best allocation of a search, its score, and how many were scored."""

    allocation: Allocation
    score: float
    tried: int


def allocate(options: Sequence[Options], weights: NDArray[np.float64], budget_ms: float) -> Allocation:
    """Return per half the option that together minimise sum of weight x error within the budget.

    Exact but for the rounding of times to budget / BUCKETS, always upwards, so that the budget holds.

    Raises:
        RecipeError: when even the fastest options take longer.
    """
    least = sum(float(half.times_ms.min()) for half in options)
    if least > budget_ms:
        raise RecipeError(
            f"the fastest network there is takes {least:.4g} ms beyond its fixed part, "
            f"{budget_ms:.4g} ms are wanted",
            hint="smaller speed_ups, or a parent of fewer layers",
        )
    # Each half's fastest option is taken off first: many of them round up to a bucket otherwise.
    unit = max(budget_ms - least, LEAST_MS) / BUCKETS
    best = np.zeros(BUCKETS + 1)
    picks: list[NDArray[np.int64]] = []
    steps: list[NDArray[np.int64]] = []
    for half, weight in zip(options, weights, strict=True):
        beyond = (half.times_ms - half.times_ms.min()) / unit
        step = np.ceil(beyond - 1e-9).astype(np.int64)
        totals = np.full((len(step), BUCKETS + 1), np.inf)
        for row, cost, taken in zip(totals, weight * half.errors, step, strict=True):
            if taken <= BUCKETS:
                row[taken:] = best[: BUCKETS + 1 - taken] + cost
        picks.append(totals.argmin(0))
        steps.append(step)
        best = totals.min(0)
    at, found = BUCKETS, []
    for pick, step in zip(reversed(picks), reversed(steps), strict=True):
        found.append(int(pick[at]))
        at -= int(step[found[-1]])
    return tuple(reversed(found))


def search(
    options: Sequence[Options],
    start: NDArray[np.float64],
    budget_ms: float,
    score: Callable[[Allocation], float],
    *,
    trials: int,
    seed: int,
    report: Callable[[float, str], None],
) -> Found:
    """Return the allocation of least score among those that mutated weights lead to.

    From the best weights so far, each is multiplied by a random factor with chance MUTATED; an allocation
    that scores lower passes its weights on.

    Args:
        options: per half layer.
        start: the first weights.
        budget_ms: as `allocate` takes it.
        score: of an allocation, lower is better: the real loss of the network it makes.
        trials: allocations scored beyond the first; those seen before do not count.
        seed: of the mutations.
        report: told the share done.

    Raises:
        RecipeError: as `allocate`.
    """
    rng = np.random.default_rng(seed)
    weights = start
    best = allocate(options, weights, budget_ms)
    lowest = score(best)
    seen, stale = {best}, 0
    while len(seen) <= trials and stale < PATIENCE * max(trials, 1):
        chosen = rng.random(len(weights)) < MUTATED
        mutated = np.where(chosen, weights * np.exp(rng.normal(0, SPREAD, len(weights))), weights)
        allocation = allocate(options, mutated, budget_ms)
        if allocation in seen:
            stale += 1
            continue
        seen.add(allocation)
        found = score(allocation)
        report(len(seen) / (trials + 1), f"{len(seen)} allocations, loss {lowest:.4f}")
        if found < lowest:
            best, lowest, weights = allocation, found, mutated
    return Found(best, lowest, len(seen))
