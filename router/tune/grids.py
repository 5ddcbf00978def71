"""The plain candidates: every chain over a grid of thresholds, less what is beaten, then finer grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.decide.scores import FloatArray
from router.tune.candidates import (
    Candidate,
    GridSums,
    chains_of,
    grid_size,
    sweep_grid,
    threshold_grid,
)
from router.tune.search import Estimate, Search, frontier, margins

PER_CHAIN = 400


def grid_estimates(
    search: Search, *, max_stages: int | None = None, accuracy_first: bool = False
) -> list[Estimate]:
    """Return the estimates that nothing beats in cost and margin (or accuracy).

    They are taken over all chains and threshold grids.
    """
    found: list[Estimate] = []
    cached: dict[tuple[int, int], FloatArray] = {}
    for chain in chains_of(len(search.sample.names), max_stages):
        if not search.takes(chain):
            continue
        scores = search.model.chain_scores(search.sample, chain)
        size = grid_size(len(chain))
        grids = []
        for place, values in enumerate(scores):
            key = (chain[place], size)
            if search.model.name in {"agreement", "deferral"}:
                grids.append(threshold_grid(values, size))
            else:
                if key not in cached:
                    cached[key] = threshold_grid(values, size)
                grids.append(cached[key])
        found += chain_estimates(search, chain, scores, grids, accuracy_first=accuracy_first)
    return found


def chain_estimates(
    search: Search,
    chain: tuple[int, ...],
    scores: Sequence[FloatArray],
    grids: Sequence[FloatArray],
    *,
    accuracy_first: bool = False,
) -> list[Estimate]:
    """Return the estimates of one chain's grid that nothing beats, at most PER_CHAIN, within the budgets."""
    sums = sweep_grid(chain, scores, grids, search.losses, search.sizes, len(search.sample))
    usd = _mean_cost(search.costs["usd_per_1k"], chain, sums)
    allowed = np.ones(usd.shape, dtype=bool)
    for name, limit in search.budgets.items():
        key = name.removeprefix("max_")
        if key == "escalation_rate":
            rate = sums.reach[1] if len(chain) > 1 else np.zeros(usd.shape)
            allowed &= (np.ones(usd.shape) if search.starts_at_reference(chain) else rate) <= limit
        else:
            allowed &= _mean_cost(search.costs[key], chain, sums) <= limit
    if accuracy_first and search.labelled:
        worth = 1.0 - sums.means[-1]
    elif search.constraints:
        worth = margins(search.constraints, sums.means, sums.squares, search.sizes)
        if search.budgets:
            escalation = sums.reach[1] if len(chain) > 1 else np.zeros(usd.shape)
            worth = np.minimum(worth, search.budget_margin(chain, sums.reach, escalation))
    else:
        worth = np.zeros(usd.shape)
    cells = np.flatnonzero(allowed.ravel())
    kept = cells[frontier(usd.ravel()[cells], np.broadcast_to(worth, usd.shape).ravel()[cells])]
    if len(kept) > PER_CHAIN:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, PER_CHAIN).astype(np.int64))]
    estimates = []
    for cell in kept:
        place = np.unravel_index(cell, usd.shape)
        candidate = Candidate(chain, tuple(float(grid[i]) for grid, i in zip(grids, place, strict=True)))
        estimates.append(
            search.summed(
                candidate,
                [float(table[place]) for table in sums.means],
                [float(table[place]) for table in sums.squares],
                np.array([float(table[place]) for table in sums.reach]),
                float(sums.reach[1][place]) if len(chain) > 1 else 0.0,
            )
        )
    return estimates


def refine(search: Search, best: Estimate, *, accuracy_first: bool = False) -> list[Estimate]:
    """Return estimates on finer grids around a plain candidate.

    Each threshold's neighbourhood is cut up again.
    """
    chain = best.candidate.chain
    if len(chain) < 2 or not all(isinstance(rule, float) for rule in best.candidate.rules):
        return []
    scores = search.model.chain_scores(search.sample, chain)
    size = grid_size(len(chain))
    grids = []
    for values, rule in zip(scores, best.candidate.rules, strict=True):
        threshold = float(rule) if isinstance(rule, float) else 0.0
        rank = int((values < threshold).sum())
        reach = max(2, 2 * len(values) // size)
        ordered = np.partition(values, [max(0, rank - reach), min(len(values) - 1, rank + reach)])
        low, high = ordered[max(0, rank - reach)], ordered[min(len(values) - 1, rank + reach)]
        local = values[(values >= low) & (values <= high)]
        grids.append(np.unique(np.append(threshold_grid(local, size), threshold)))
    return chain_estimates(search, chain, scores, grids, accuracy_first=accuracy_first)


def _mean_cost(values: FloatArray | None, chain: tuple[int, ...], sums: GridSums) -> FloatArray:
    total = np.zeros(sums.reach[0].shape)
    if values is not None:
        for variant, share in zip(chain, sums.reach, strict=True):
            total = total + np.where(share > 0, values[variant] * share, 0.0)
    return total
