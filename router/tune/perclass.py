"""Per-class routing: thresholds and next stages that depend on the predicted class.

They are found by coordinate ascent, after FrugalML (Chen, Zaharia, Zou 2020), for any number of stages: at a
price lambda per unit of cost, each stage in turn takes, for every class it predicts, the threshold and the
next stage that lose least, the other stages held fixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from router.decide.scores import FloatArray, IntArray
from router.tune.candidates import (
    ACCEPT_ALL,
    ESCALATE_ALL,
    Candidate,
    ClassRules,
    Routed,
    route,
    threshold_grid,
)
from router.tune.sample import Sample
from router.tune.search import Estimate, Search, frontier

MIN_COUNT = 100
SHRINKAGE = 50.0
BINS = 128
ROUNDS = 3
FOLDS = 4
FIT_ROWS = 20_000
MOST_CHAINS = 12
SMALLEST_EPSILON = 1e-3
COARSE_PRICES = 12
FINE_PRICES = 14


@dataclass(frozen=True, eq=False)
class _Stage:
    """One stage's rows in bins: slot [N] = group * BINS + bin; grid [B]; group_of [C + 1]."""

    slot: IntArray
    grid: FloatArray
    group_of: IntArray
    groups: int
    outside_group: int | None


def per_class_estimates(
    search: Search, plain: Sequence[Estimate], *, seed: int, max_stages: int | None = None
) -> list[Estimate]:
    """Return candidates with rules per class along a path of prices.

    They are judged on rows that each fold's rules did not see. Empty where no class of the cheapest stages is
    predicted often enough (MIN_COUNT) for rules of its own.
    """
    rng = np.random.default_rng(seed)
    sample = search.sample
    rows = (
        np.arange(len(sample))
        if len(sample) <= FIT_ROWS
        else np.sort(rng.choice(len(sample), FIT_ROWS, replace=False))
    )
    part = sample.take(rows)
    utility = -_combined_loss(search)[:, rows]
    fold = rng.permutation(len(part)) % FOLDS
    found: list[Estimate] = []
    scale = max(1e-12, float(sample.usd.max()))
    prices = np.geomspace(0.01, 1.5, COARSE_PRICES) / scale
    for chain in _chains(len(sample.names), max_stages, plain):
        scores = search.model.chain_scores(part, chain)
        stages = [
            _bin_stage(part.answers[v], s, sample.classes) for v, s in zip(chain[:-1], scores, strict=True)
        ]
        if all(stage.groups < 2 for stage in stages):
            continue

        def judged(
            price: float,
            chain: tuple[int, ...] = chain,
            stages: Sequence[_Stage] = stages,
            scores: Sequence[FloatArray] = scores,
        ) -> Estimate | None:
            full = _prune(_fit(chain, stages, utility, sample.usd, price, None, sample.classes), part, scores)
            if full is None:
                return None
            routed = _cross_fitted(chain, stages, utility, price, part, scores, fold)
            return _estimate(search, full, routed, rows, chain)

        coarse = [judged(price) for price in prices.tolist()]
        low, high = _window(search, prices, coarse)
        fine = np.geomspace(low, high, FINE_PRICES + 2)[1:-1]
        found += [e for e in (*coarse, *(judged(price) for price in fine.tolist())) if e is not None]
    return found


def _window(search: Search, prices: FloatArray, path: Sequence[Estimate | None]) -> tuple[float, float]:
    """Return the prices between which the tightest risk goes from 0.2 to 1.5 of its epsilon."""
    low, high = float(prices[0]), float(prices[-1])
    if not search.constraints:
        return low, high
    limits = [max(c.epsilon, SMALLEST_EPSILON) for c in search.constraints]
    for price, estimate in zip(prices.tolist(), path, strict=True):
        if estimate is None:
            continue
        used = max(risk / limit for risk, limit in zip(estimate.risks, limits, strict=True))
        if used <= 0.2:
            low = price
        elif used >= 1.5:
            return low, max(price, low)
    return low, high


def _combined_loss(search: Search) -> FloatArray:
    """Return [V, N]: the losses of all constraints weighed by one over their epsilons, else the errors."""
    count = len(search.constraints)
    if count == 0:
        return search.losses[-1]
    first = max(search.constraints[0].epsilon, SMALLEST_EPSILON)
    n = len(search.sample)
    parts = [
        loss * (n / max(1, size)) * (first / max(constraint.epsilon, SMALLEST_EPSILON))
        for constraint, loss, size in zip(search.constraints, search.losses, search.sizes, strict=False)
    ]
    return np.asarray(np.sum(parts, axis=0))


def _chains(count: int, max_stages: int | None, plain: Sequence[Estimate]) -> list[tuple[int, ...]]:
    """Return all chains of two stages or more where they are few.

    Else those of the plain candidates that nothing beats.
    """
    longest = min(count, max_stages or count)
    every = [chain for size in range(2, longest + 1) for chain in itertools.combinations(range(count), size)]
    if len(every) <= MOST_CHAINS:
        return every
    kept = frontier(np.array([e.usd_per_1k for e in plain]), np.array([e.margin for e in plain]))
    hopeful = dict.fromkeys(plain[i].candidate.chain for i in kept.tolist())
    return [chain for chain in hopeful if len(chain) > 1][:MOST_CHAINS]


def _bin_stage(answers: IntArray, scores: FloatArray, classes: int) -> _Stage:
    grid = threshold_grid(scores, BINS)
    bins = np.maximum(np.searchsorted(grid, scores, side="right") - 1, 0)
    count = np.bincount(answers, minlength=classes + 1)
    own = count >= MIN_COUNT
    group_of = np.zeros(classes + 1, dtype=np.int64)
    group_of[own] = np.arange(1, int(own.sum()) + 1)
    return _Stage(
        slot=group_of[answers] * BINS + bins,
        grid=grid,
        group_of=group_of,
        groups=int(own.sum()) + 1,
        outside_group=int(group_of[classes]) if own[classes] else None,
    )


def _fit(
    chain: tuple[int, ...],
    stages: Sequence[_Stage],
    utility: FloatArray,
    usd: FloatArray,
    price: float,
    rows: IntArray | None,
    classes: int,
) -> Candidate:
    """Maximise sum(utility) - price * cost over the rules of all stages, on `rows` (None: all)."""
    last = len(chain) - 1
    slots = [stage.slot if rows is None else stage.slot[rows] for stage in stages]
    own = [utility[v] if rows is None else utility[v][rows] for v in chain]
    fees = [price * float(usd[v]) for v in chain]
    n = len(own[0])
    arrived: list[np.ndarray[tuple[int], np.dtype[np.bool_]] | None] = [None] * last
    cuts = [np.zeros(stage.groups, dtype=np.int64) for stage in stages]
    targets = [np.full(stage.groups, place + 1, dtype=np.int64) for place, stage in enumerate(stages)]
    for round_ in range(ROUNDS):
        worth: list[FloatArray] = [np.zeros(0)] * last + [own[last] - fees[last]]
        for place in range(last - 1, -1, -1):
            stage = stages[place]
            cuts[place], targets[place] = _best_rules(
                stage, slots[place], own[place], worth, place, arrived[place], n
            )
            group, bins = np.divmod(slots[place], BINS)
            leaves = bins < cuts[place][group]
            following = targets[place][group]
            value = own[place].copy()
            for target in range(place + 1, last + 1):
                mine = leaves & (following == target)
                value[mine] = worth[target][mine]
            worth[place] = value - fees[place]
        if round_ == ROUNDS - 1 or last == 1:
            break
        flows = [np.zeros(n, dtype=bool) for _ in range(last + 1)]
        flows[0][:] = True
        for place in range(last):
            group, bins = np.divmod(slots[place], BINS)
            leaves = flows[place] & (bins < cuts[place][group])
            for target in range(place + 1, last + 1):
                flows[target] |= leaves & (targets[place][group] == target)
        arrived = [None, *flows[1:last]]
    return Candidate(
        chain, tuple(_class_rules(stage, cuts[p], targets[p], p, classes) for p, stage in enumerate(stages))
    )


def _best_rules(
    stage: _Stage,
    slot: IntArray,
    own: FloatArray,
    worth: Sequence[FloatArray],
    place: int,
    arrived: np.ndarray[tuple[int], np.dtype[np.bool_]] | None,
    n: int,
) -> tuple[IntArray, IntArray]:
    """Return per group the number of lowest bins that escalate and where to.

    It is the best over thresholds and later stages. Each group's gain is joined by that of SHRINKAGE rows
    like the average, so that few rows cannot move it far.
    """
    best = np.zeros(stage.groups)
    cut = np.zeros(stage.groups, dtype=np.int64)
    target = np.full(stage.groups, place + 1, dtype=np.int64)
    for following in range(place + 1, len(worth)):
        gain = worth[following] - own
        if arrived is not None:
            gain = gain * arrived
        table = np.bincount(slot, gain, stage.groups * BINS).reshape(stage.groups, BINS)
        sums = np.cumsum(table, axis=1)
        sums = sums + SHRINKAGE / max(1, n) * sums.sum(axis=0)
        at = sums.argmax(axis=1)
        top = sums[np.arange(stage.groups), at]
        better = top > best
        if stage.outside_group is not None and following != place + 1:
            better[stage.outside_group] = False
        best[better], cut[better], target[better] = top[better], at[better] + 1, following
    return cut, target


def _class_rules(stage: _Stage, cut: IntArray, target: IntArray, place: int, classes: int) -> ClassRules:
    grid = np.concatenate([stage.grid, np.full(BINS + 1 - len(stage.grid), ESCALATE_ALL)])
    thresholds = np.where(cut == 0, ACCEPT_ALL, grid[cut])[stage.group_of]
    nexts = target[stage.group_of].copy()
    nexts[classes] = place + 1
    return ClassRules(thresholds, nexts)


def _cross_fitted(
    chain: tuple[int, ...],
    stages: Sequence[_Stage],
    utility: FloatArray,
    price: float,
    part: Sample,
    scores: Sequence[FloatArray],
    fold: IntArray,
) -> Routed:
    """Route every row by rules fitted on the other folds."""
    n = len(part)
    chosen = np.zeros(n, dtype=np.int64)
    place = np.zeros(n, dtype=np.int64)
    ran = np.zeros((n, len(chain)), dtype=bool)
    for index in range(int(fold.max()) + 1):
        held = np.flatnonzero(fold == index)
        candidate = _fit(chain, stages, utility, part.usd, price, np.flatnonzero(fold != index), part.classes)
        routed = route(candidate, part.take(held), [values[held] for values in scores])
        chosen[held], place[held], ran[held] = routed.chosen, routed.place, routed.ran
    return Routed(chosen, place, ran)


def _prune(candidate: Candidate, part: Sample, scores: Sequence[FloatArray]) -> Candidate | None:
    """Drop stages that no row reaches; None where fewer than two remain."""
    kept = np.flatnonzero(route(candidate, part, scores).ran.any(axis=0))
    if len(kept) < 2:
        return None
    if len(kept) == len(candidate.chain):
        return candidate
    rules: list[float | ClassRules] = []
    for position, place in enumerate(kept[:-1].tolist()):
        rule = candidate.rules[place]
        if not isinstance(rule, ClassRules):
            rules.append(rule)
            continue
        nexts = np.minimum(np.searchsorted(kept, rule.nexts), len(kept) - 1)
        nexts = np.maximum(nexts, position + 1)
        nexts[-1] = position + 1
        rules.append(ClassRules(rule.thresholds, nexts))
    return Candidate(tuple(candidate.chain[place] for place in kept.tolist()), tuple(rules))


def _estimate(
    search: Search, candidate: Candidate, judged: Routed, rows: IntArray, chain: tuple[int, ...]
) -> Estimate:
    """Return the estimate of `candidate` from the cross-fitted routing of the full chain."""
    drawn = [loss[judged.chosen, rows] for loss in search.losses]
    share = len(rows) / max(1, len(search.sample))
    means = [float(d.sum()) / max(1.0, size * share) for d, size in zip(drawn, search.sizes, strict=True)]
    squares = [
        float((d**2).sum()) / max(1.0, size * share) for d, size in zip(drawn, search.sizes, strict=True)
    ]
    whole = Candidate(chain, ())
    summed = search.summed(
        whole, means, squares, judged.ran.mean(axis=0), float((judged.place > 0).mean()), honest=True
    )
    right = search.sample.right
    drop = float(right[search.reference, rows].mean() - right[judged.chosen, rows].mean())
    known = drop if search.labelled else None
    return replace(summed, candidate=candidate, n_judged=len(rows), accuracy_drop=known)
