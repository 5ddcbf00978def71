"""What a search on the tune part works with: losses, costs and budgets, and what they say of a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from contract.costs import Cost
from router.decide.scores import FloatArray, IntArray
from router.tune.candidates import Candidate, Routed, route
from router.tune.sample import Sample, ScoreModel
from router.tune.targets import Constraint


@dataclass(frozen=True, eq=False)
class Estimate:
    """A candidate with what the tune part says of it.

    Attributes:
        risks: mean loss per constraint; margin: how many standard errors the tightest lies below its bound.
        accuracy: None without labels. latency_ms and energy_wh_per_1k: None where a stage's cost lacks them.
        honest: whether the figures come from rows that the rules were not fitted on.
        n_judged, accuracy_drop: how many rows these were, and the drop against the reference on them.
    """

    candidate: Candidate
    risks: tuple[float, ...]
    margin: float
    usd_per_1k: float
    latency_ms: float | None
    energy_wh_per_1k: float | None
    escalation_rate: float
    accuracy: float | None
    honest: bool = False
    n_judged: int = 0
    accuracy_drop: float | None = None


@dataclass(frozen=True, eq=False)
class Search:
    """What a search works on: the tune sample, its scores, and the constraints with losses and costs.

    Where `ends_at_reference` every cascade has at least one stage before the reference, which is its last.
    """

    sample: Sample
    model: ScoreModel
    constraints: tuple[Constraint, ...]
    losses: tuple[FloatArray, ...]
    sizes: tuple[int, ...]
    costs: Mapping[str, FloatArray | None]
    budgets: Mapping[str, float]
    labelled: bool
    reference: int
    ends_at_reference: bool = False

    def estimate(self, candidate: Candidate, routed: Routed, *, honest: bool = False) -> Estimate:
        """Return the figures of a routed candidate on the whole sample."""
        rows = np.arange(len(self.sample))
        drawn = [loss[routed.chosen, rows] for loss in self.losses]
        means = [float(d.sum()) / max(1, size) for d, size in zip(drawn, self.sizes, strict=True)]
        squares = [float((d**2).sum()) / max(1, size) for d, size in zip(drawn, self.sizes, strict=True)]
        reach = routed.ran.mean(axis=0)
        return self.summed(candidate, means, squares, reach, float((routed.place > 0).mean()), honest=honest)

    def summed(
        self,
        candidate: Candidate,
        means: Sequence[float],
        squares: Sequence[float],
        reach: FloatArray,
        escalation: float,
        *,
        honest: bool = False,
    ) -> Estimate:
        """Return the estimate of the means and mean squares of all losses.

        The last is the error where rows are labelled.
        """
        count = len(self.constraints)
        figures = {}
        for key, values in self.costs.items():
            used = None if values is None else values[list(candidate.chain)]
            figures[key] = (
                None if used is None or np.isnan(used[reach > 0]).any() else float(np.nansum(used * reach))
            )
        quality = float(margins(self.constraints, means, squares, self.sizes)) if count else np.inf
        return Estimate(
            candidate=candidate,
            risks=tuple(means[:count]),
            margin=min(quality, float(self.budget_margin(candidate.chain, reach, np.asarray(escalation)))),
            usd_per_1k=figures["usd_per_1k"] or 0.0,
            latency_ms=figures["latency_ms"],
            energy_wh_per_1k=figures["energy_wh_per_1k"],
            escalation_rate=escalation,
            accuracy=1.0 - means[count] if self.labelled else None,
            honest=honest,
        )

    def budget_margin(
        self, chain: Sequence[int], reach: Sequence[FloatArray] | FloatArray, escalation: FloatArray
    ) -> FloatArray:
        """Return how many standard errors the tightest budget lies above the mean cost.

        Infinite where no request can exceed it. A row that runs stage j is taken to have run the ones before
        it, which rules per class may skip: this orders candidates, and no guarantee rests on it.
        """
        n = max(1, len(self.sample))
        found = [np.full(np.shape(escalation), np.inf)]
        for name, limit in self.budgets.items():
            key = name.removeprefix("max_")
            if key == "escalation_rate":
                mean = np.ones(np.shape(escalation)) if self.starts_at_reference(chain) else escalation
                square, most = mean, float(len(chain) > 1 or self.starts_at_reference(chain))
            else:
                values = self.costs[key]
                fees = np.zeros(len(chain)) if values is None else values[list(chain)]
                sums = np.cumsum(fees)
                steps = np.diff(np.concatenate([[0.0], sums**2]))
                mean = np.asarray(sum(fee * share for fee, share in zip(fees, reach, strict=True)))
                square = np.asarray(sum(step * share for step, share in zip(steps, reach, strict=True)))
                most = float(sums[-1])
            spread = np.sqrt((np.maximum(square - mean**2, 0.0) + most**2 / n) / n)
            gap = (limit - mean) / np.maximum(spread, 1e-300)
            found.append(np.full(np.shape(mean), np.inf) if most <= limit else gap)
        return np.asarray(np.minimum.reduce(found))

    def takes(self, chain: Sequence[int]) -> bool:
        """Whether a cascade of these variants is one that is asked for."""
        return not self.ends_at_reference or (len(chain) > 1 and chain[-1] == self.reference)

    def cheapest_is_reference(self) -> bool:
        """Whether no variant costs less than the reference, so that there is nothing to route to."""
        usd = self.sample.usd
        return bool((usd >= usd[self.reference]).all())

    def within_budget(self, estimate: Estimate) -> bool:
        """Whether the estimate keeps every budget."""
        figures = {name: getattr(estimate, name.removeprefix("max_")) or 0.0 for name in self.budgets}
        if self.starts_at_reference(estimate.candidate.chain):
            figures["max_escalation_rate"] = 1.0
        return all(figures[name] <= limit for name, limit in self.budgets.items())

    def starts_at_reference(self, chain: Sequence[int]) -> bool:
        """Whether every request goes to the reference at once.

        A limit on escalations means to prevent that.
        """
        return chain[0] == self.reference


def margins(
    constraints: Sequence[Constraint],
    means: Sequence[float] | Sequence[FloatArray],
    squares: Sequence[float] | Sequence[FloatArray],
    sizes: Sequence[int],
) -> FloatArray:
    """Return the smallest of (bound - mean) / standard error over the constraints.

    One pseudo-event keeps the error above 0.
    """
    found = [
        (c.bound - np.asarray(mean))
        / np.sqrt(
            (np.maximum(np.asarray(square) - np.asarray(mean) ** 2, 0.0) + 1.0 / max(1, size)) / max(1, size)
        )
        for c, mean, square, size in zip(constraints, means, squares, sizes, strict=False)
    ]
    return np.asarray(np.minimum.reduce(found))


def make_search(
    sample: Sample,
    model: ScoreModel,
    constraints: tuple[Constraint, ...],
    costs: Mapping[str, Cost],
    budgets: Mapping[str, float],
    reference: int,
) -> Search:
    """Return the search over `sample`, with the losses of every constraint worked out once."""
    labelled = bool((sample.label >= 0).all())
    losses: list[FloatArray] = []
    sizes: list[int] = []
    for constraint in constraints:
        mask = constraint.rows(sample)
        losses.append(constraint.losses(sample) * mask)
        sizes.append(int(mask.sum()))
    if labelled:
        losses.append(np.asarray(1.0 - sample.right, dtype=np.float64))
        sizes.append(len(sample))
    figures: dict[str, FloatArray | None] = {}
    for key in ("usd_per_1k", "latency_ms", "energy_wh_per_1k"):
        values = [getattr(costs[name], key) for name in sample.names]
        known = any(value is not None for value in values)
        figures[key] = np.array([np.nan if v is None else v for v in values]) if known else None
    return Search(
        sample, model, constraints, tuple(losses), tuple(sizes), figures, budgets, labelled, reference
    )


def frontier(cost: FloatArray, worth: FloatArray) -> IntArray:
    """Return the indices, dearest first, of the points that no point as cheap or cheaper matches in worth."""
    order = np.lexsort((-worth, cost))
    best = np.maximum.accumulate(worth[order])
    better = np.concatenate([[True], best[1:] > best[:-1]]) if len(order) else np.zeros(0, dtype=bool)
    return np.asarray(order[better][::-1], dtype=np.int64)


def thin(estimates: Sequence[Estimate], most: int = 100) -> list[Estimate]:
    """Return the Pareto set of cost and accuracy (or margin, without labels), dearest first.

    At most `most` of it.
    """
    if not estimates:
        return []
    worth = np.array([e.margin if e.accuracy is None else e.accuracy for e in estimates])
    kept = frontier(np.array([e.usd_per_1k for e in estimates]), worth)
    if len(kept) > most:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, most).round().astype(np.int64))]
    return [estimates[index] for index in kept]


def routed_by(search: Search, candidate: Candidate, sample: Sample) -> Routed:
    """Route another sample through a candidate with the scores fitted for this search."""
    return route(candidate, sample, search.model.chain_scores(sample, candidate.chain))
