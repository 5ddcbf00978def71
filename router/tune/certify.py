"""Certification on rows that tuning never saw: fixed-sequence testing, safest first, each at level delta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.decide.scores import FloatArray, IntArray
from router.tune.candidates import Candidate, ClassRules, Routed
from router.tune.pvalues import betting_p_value, binomial_p_value
from router.tune.sample import Sample
from router.tune.search import Estimate, Search, frontier, routed_by, thin
from router.tune.targets import LOCAL, Constraint

SEQUENCE = 100
SEQUENCE_OF_MANY_ROWS = 50
MANY_ROWS = 100_000
# Of candidates chosen among thousands the one with more fitted numbers looks safer than it is, by about this
# many standard errors a number, however many rows there are.
HANDICAP = 0.4
STEPS = (0.5, 0.75)


@dataclass(frozen=True, eq=False)
class Tested:
    """One candidate of the sequence, its p-value and whether it passed.

    The p-value is None where the drop is zero by construction.
    """

    estimate: Estimate
    p_value: float | None
    passed: bool
    routed: Routed


def sequence_of(
    search: Search, n_certify: int, trivial: Estimate | None, given: Sequence[Estimate], delta: float
) -> list[Estimate]:
    """Return the candidates in the order of testing, safest first.

    They are the Pareto set of cost and handicapped margin, thinned, behind a start that is nearer to what is
    certain. `trivial`, which needs no test, bounds the cost: nothing as dear as it is worth testing.

    Of local answers few tell little, however sure they are. So where a target is on them the sequence starts
    where rows with half of what it allows would pass at level `delta`.
    """
    if not given:
        return []
    cost = np.array([e.usd_per_1k for e in given])
    margin = np.array([e.margin - HANDICAP * fitted_numbers(e) for e in given])
    kept = frontier(cost, margin)
    if trivial is not None:
        kept = kept[cost[kept] < trivial.usd_per_1k]
    most = SEQUENCE if n_certify <= MANY_ROWS else SEQUENCE_OF_MANY_ROWS
    if len(kept) > most:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, most).round().astype(np.int64))]
    epsilons = [c.epsilon for c in search.constraints if c.kind in LOCAL]
    if epsilons:
        least = max(_tellable(epsilon, delta, n_certify) for epsilon in epsilons) / max(1, n_certify)
        return [given[index] for index in kept if _local_share(search, given[index]) >= least]
    if trivial is None or not len(kept):
        return [given[index] for index in kept]
    pairs = [i for i in np.argsort(-margin, kind="stable") if _is_pair(search, given[i])]
    start = _safer(search, given[pairs[0]], trivial) if pairs else []
    return [*start, *(given[index] for index in kept)]


def _tellable(epsilon: float, delta: float, most: int) -> int:
    """Return how many local answers pass at delta with half of epsilon wrong; `most` where none do."""
    return next(
        (n for n in range(1, most) if binomial_p_value(int(epsilon * n / 2), n, epsilon) <= delta), most
    )


def _local_share(search: Search, estimate: Estimate) -> float:
    chosen = routed_by(search, estimate.candidate, search.sample).chosen
    return float((chosen != search.reference).mean())


def fitted_numbers(estimate: Estimate) -> int:
    """Return how many numbers of a candidate were chosen on the tune part; rules by class count twice."""
    return sum(2 if isinstance(rule, ClassRules) else 1 for rule in estimate.candidate.rules)


def _is_pair(search: Search, estimate: Estimate) -> bool:
    """Whether a candidate is one variant before the reference with one threshold, worth a test."""
    chain, rules = estimate.candidate.chain, estimate.candidate.rules
    one = len(chain) == 2 and chain[1] == search.reference and not isinstance(rules[0], ClassRules)
    return one and estimate.margin > 0


def _safer(search: Search, pair: Estimate, trivial: Estimate) -> list[Estimate]:
    """Return candidates that accept half and three quarters of what `pair` accepts, the surest first.

    They are steps from what is certain, which is to accept nothing.
    """
    chain = pair.candidate.chain
    (scores,) = search.model.chain_scores(search.sample, chain)
    accepted = np.sort(scores[scores >= float(pair.candidate.rules[0])])[::-1]  # type: ignore[arg-type]
    found = []
    for share in STEPS:
        count = int(share * len(accepted))
        if count == 0 or accepted[count - 1] == accepted[count]:
            continue
        candidate = Candidate(chain, (float(accepted[count - 1] + accepted[count]) / 2,))
        estimate = search.estimate(candidate, routed_by(search, candidate, search.sample))
        if search.within_budget(estimate) and estimate.usd_per_1k < trivial.usd_per_1k:
            found.append(estimate)
    return found


def sequence_by_accuracy(estimates: Sequence[Estimate], n_certify: int) -> list[Estimate]:
    """Return the candidates that nothing beats in cost and accuracy, safest first, thinned.

    For the most accurate policy no cost is too high.
    """
    most = SEQUENCE if n_certify <= MANY_ROWS else SEQUENCE_OF_MANY_ROWS
    return sorted(thin(estimates, most), key=lambda e: (-e.margin, -(e.accuracy or 0.0)))


def fixed_sequence(
    search: Search, sequence: Sequence[Estimate], sample: Sample, order: IntArray, delta: float
) -> list[Tested]:
    """Test candidates in order, each at delta, until the first failure.

    All that passed hold together with probability at least 1 - delta, without a Bonferroni factor and without
    monotonicity (Angelopoulos et al. 2021, "Learn then Test", 2.3). `order` [N] is the fixed shuffle in which
    rows are bet on. Of several constraints and budgets the largest p-value counts.
    """
    shuffled = sample.take(order)
    losses = [constraint.losses(shuffled) for constraint in search.constraints]
    tested: list[Tested] = []
    for estimate in sequence:
        routed = routed_by(search, estimate.candidate, shuffled)
        p_value = max(
            worst_p_value(search.constraints, losses, shuffled, routed.chosen, delta),
            worst_budget_p_value(search, estimate, routed, delta),
        )
        passed = p_value <= delta
        tested.append(Tested(estimate, p_value, passed, routed))
        if not passed:
            break
    return tested


def worst_p_value(
    constraints: Sequence[Constraint],
    losses: Sequence[FloatArray],
    sample: Sample,
    chosen: IntArray,
    delta: float,
) -> float:
    """Return the largest of the constraints' p-values when variant chosen[i] answers row i."""
    found = [c.p_value(sample, chosen, loss, delta) for c, loss in zip(constraints, losses, strict=True)]
    return max(found, default=0.0)


def worst_budget_p_value(search: Search, estimate: Estimate, routed: Routed, delta: float) -> float:
    """Return the largest p-value of "the mean cost of a request is at least the budget", 0 without budgets.

    A row's cost is bounded by that of running every stage, so the betting p-value applies to cost / bound; a
    budget at or above the bound, as of a single stage within it, is kept for certain.
    """
    found = [
        0.0 if limit >= 1.0 else betting_p_value(values, limit, delta, low=0.0)
        for values, limit in budget_losses(search, estimate, routed)
    ]
    return max(found, default=0.0)


def budget_losses(search: Search, estimate: Estimate, routed: Routed) -> list[tuple[FloatArray, float]]:
    """Return per budget the rows' costs [N] and the budget.

    Both are divided by the cost of running every stage.
    """
    found: list[tuple[FloatArray, float]] = []
    for name, limit in search.budgets.items():
        key = name.removeprefix("max_")
        if key == "escalation_rate":
            alone = len(estimate.candidate.chain) == 1
            at_once = search.starts_at_reference(estimate.candidate.chain)
            escalated = np.full(len(routed.place), float(at_once)) if alone else routed.place > 0
            found.append((escalated.astype(np.float64), 1.0 if alone and not at_once else limit))
            continue
        values = search.costs[key]
        used = (
            np.zeros(len(estimate.candidate.chain))
            if values is None
            else values[list(estimate.candidate.chain)]
        )
        bound = float(used.sum()) or 1.0
        found.append((routed.ran @ used / bound, limit / bound))
    return found
