"""Tuning: from predictions, costs and targets to a policy, its certificate, explanation and neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from contract.costs import Cost
from contract.errors import InputError, PredictionsError
from contract.policy import ABSTAIN, Gear, Policy
from contract.predictions import Predictions
from router.tune.abstain import answering, person_of
from router.tune.alternatives import Alternative, alternatives_of
from router.tune.certify import Tested, fixed_sequence, sequence_by_accuracy, sequence_of
from router.tune.explain import explain
from router.tune.gears import check_gears, explained, gears_of, overload_share, overload_tested
from router.tune.grids import grid_estimates, refine
from router.tune.perclass import per_class_estimates
from router.tune.policies import Evidence, build_policy
from router.tune.record import recorded
from router.tune.sample import by_cost, fit_scores, make_sample
from router.tune.search import Estimate, Search, make_search, routed_by, thin
from router.tune.settings import (
    TuneSettings,
    checked_names,
    chosen_reference,
    data_hash,
    labelled_rows,
    split_parts,
)
from router.tune.targets import LOCAL, Method, Targets, check_budgets, constraints_of

__all__ = ["TuneResult", "TuneSettings", "split_parts", "tune"]


@dataclass(frozen=True, eq=False)
class TuneResult:
    """A policy with what it means.

    Attributes:
        policy: always there; status no_safe_threshold sends everything to the reference.
        explanation: plain-text lines for people.
        alternatives: the neighbouring choices, dearest first.
        curve: the trade-off on the tune part, dearest first.
    """

    policy: Policy
    explanation: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    curve: tuple[Alternative, ...]

    @property
    def met(self) -> bool:
        """Whether the targets are met (else `sluice tune` exits 3)."""
        return self.policy.status != "no_safe_threshold"


def tune(
    predictions: Predictions,
    costs: Mapping[str, Cost],
    targets: Targets,
    settings: TuneSettings | None = None,
) -> TuneResult:
    """Choose stages and thresholds that keep `targets` at the least cost, and say how sure that is.

    Raises:
        PredictionsError: data that a target needs are missing: labels, a cost, rows of a split, logits of a
        score. InputError: a target or setting is out of range or names what is not there.
    """
    given = settings or TuneSettings()
    against = chosen_reference(predictions, costs, given)
    reference = against.name
    names = checked_names(predictions, costs, given, reference)
    if not targets.has_quality and not targets.budgets():
        raise InputError(
            "no target was given",
            hint="--max-accuracy-drop 0.01, or --max-usd-per-1k with --objective most-accurate",
        )
    check_budgets(targets, names, costs)
    check_gears(targets, given)
    person = person_of(predictions, costs, targets, given, reference)
    names = answering(names, person)
    if len(names) == 1 and person is None and targets.has_quality and targets.min_accuracy is None:
        raise PredictionsError(
            f"{reference!r} is the only variant, so there is nothing that a drop could be counted against",
            hint="add the predictions of the model it replaces, or ask for --min-accuracy",
        )
    tune_part, certify_part = split_parts(predictions, given)
    ordered = by_cost(names, costs, tune_part)
    labelled = targets.needs_labels and (predictions.label >= 0).any()
    method: Method = given.method if labelled else "disagreement"
    parts = [tune_part] if certify_part is None else [tune_part, certify_part]
    occurring = np.unique(np.concatenate([part.label for part in parts]))
    classes = tuple(occurring[occurring >= 0].tolist())
    # A person is the last variant, behind all that are asked.
    last = ordered.index(reference) if person is None else len(ordered)
    constraints = constraints_of(targets, predictions, last, method, classes)
    if method != "disagreement":
        tune_part = labelled_rows(tune_part, "tune")
        certify_part = None if certify_part is None else labelled_rows(certify_part, "certify")
    model = fit_scores(tune_part, ordered, given.score, seed=given.seed, reference=reference)
    usd = {name: costs[name].usd_per_1k for name in ordered}
    parts = [part for part in (tune_part, certify_part) if part is not None]
    samples = [make_sample(part, ordered, usd, model) for part in parts]
    priced = costs
    if person is not None:
        samples = [person.beside(found, part) for found, part in zip(samples, parts, strict=True)]
        costs = {**costs, ABSTAIN: person.cost}
        priced = {**costs, ABSTAIN: Cost(person.usd_per_1k, 0.0, 0.0)}
    sample = samples[0]
    search = make_search(sample, model, constraints, priced, targets.budgets(), last)
    if person is not None:
        search = replace(search, labelled=False, ends_at_reference=True)
    evidence = Evidence(
        search=search,
        reference=last,
        person=person,
        reference_name=reference,
        tuning=recorded(targets, given),
        why_reference=against.why,
        stands_for=given.stands_for if reference == given.teacher else None,
        machine=given.machine,
        targets=targets,
        certify=None if certify_part is None else samples[1],
        n_tune=len(tune_part),
        delta=1.0 - given.confidence,
        seed=given.seed,
        data_sha256=data_hash(predictions),
        artifact_sha256=given.artifact_sha256,
        created_at=given.created_at,
        costs=costs,
        max_stages=given.max_stages,
        overload_share=overload_share(given),
    )
    for part, rows in (("tune", sample), ("certify", evidence.certify)):
        for constraint in constraints:
            if rows is not None and not constraint.rows(rows).any():
                raise PredictionsError(f"the {part} part has no row for the target {constraint.metric}")
    estimates = _candidates(search, targets, given)
    if given.certified:
        return _certified(evidence, estimates, given)
    return _uncertified(evidence, estimates)


def _candidates(search: Search, targets: Targets, settings: TuneSettings) -> list[Estimate]:
    accuracy_first = targets.objective == "most_accurate" or not search.constraints
    found = grid_estimates(search, max_stages=settings.max_stages, accuracy_first=accuracy_first)
    judged = search.labelled or bool(search.constraints)
    # Rules per class weigh losses by their epsilons, which those of local answers have taken off already.
    weighed = all(c.kind not in LOCAL for c in search.constraints)
    fitted = settings.score in {"agreement", "deferral"}
    if settings.per_class == "auto" and judged and weighed and not fitted:
        extra = per_class_estimates(search, found, seed=settings.seed, max_stages=settings.max_stages)
        found += [estimate for estimate in extra if search.within_budget(estimate)]
    return found


def _uncertified(evidence: Evidence, estimates: Sequence[Estimate]) -> TuneResult:
    search, most_accurate = evidence.search, evidence.targets.objective == "most_accurate"
    accuracy_first = most_accurate or not search.constraints
    best = _empirical_best(search, estimates, accuracy_first)
    if best is None:
        return _result(evidence, None, [], estimates)
    finer = refine(search, best, accuracy_first=accuracy_first)
    best = _empirical_best(search, [best, *finer], accuracy_first) or best
    return _result(evidence, best, [], [*estimates, *finer])


def _certified(evidence: Evidence, estimates: Sequence[Estimate], settings: TuneSettings) -> TuneResult:
    search, sample = evidence.search, evidence.certify
    if sample is None:
        raise InputError("a certificate needs rows to certify with")
    order = np.random.default_rng(evidence.seed).permutation(len(sample))
    trivial = _reference_alone(evidence)
    accuracy_first = evidence.targets.objective == "most_accurate" or not search.constraints
    if trivial is not None and search.cheapest_is_reference() and search.within_budget(trivial):
        return _geared(_result(evidence, trivial, [], estimates), evidence, (), settings)
    sequence = (
        sequence_by_accuracy(estimates, len(sample))
        if accuracy_first
        else sequence_of(search, len(sample), trivial, estimates, evidence.level)
    )
    tested = fixed_sequence(search, sequence, sample, order, evidence.level)
    passed = [t for t in tested if t.passed]
    if accuracy_first:
        best = max(passed, key=lambda t: t.estimate.accuracy or 0.0, default=None)
    else:
        best = min(passed, key=lambda t: t.estimate.usd_per_1k, default=None)
    chosen = None if best is None else best.estimate
    asked = settings.allow_always_escalate and trivial is not None
    if chosen is None and asked and trivial is not None and search.within_budget(trivial):
        chosen = trivial
    found = _result(evidence, chosen, tested, estimates)
    if not settings.gears or chosen is None:
        return found
    overload = overload_tested(
        evidence, settings, lambda wider, asked: _candidates(wider, asked, settings), trivial, order
    )
    return _geared(found, evidence, gears_of(evidence, settings, chosen, tested, overload), settings)


def _geared(
    found: TuneResult, evidence: Evidence, gears: tuple[Gear, ...], settings: TuneSettings
) -> TuneResult:
    """Return a result with the ladder, where one was asked for, in its policy and in its explanation."""
    if not settings.gears:
        return found
    told = (*found.explanation, *explained(gears, evidence.delta))
    policy = found.policy.model_copy(update={"gears": gears, "version": ""})
    if policy.certificate is not None:
        used = {*policy.variants, policy.reference}
        known = evidence.artifact_sha256
        bound = {name: known[name] for name in sorted(used) if name in known}
        certificate = policy.certificate.model_copy(update={"variants": bound})
        policy = policy.model_copy(update={"certificate": certificate})
    return replace(found, policy=policy.sealed(), explanation=told)


def _result(
    evidence: Evidence, chosen: Estimate | None, tested: Sequence[Tested], estimates: Sequence[Estimate]
) -> TuneResult:
    policy = build_policy(evidence, chosen, tested, estimates)
    alternatives = alternatives_of(evidence, chosen, tested, estimates)
    curve = tuple(Alternative.of(evidence, estimate) for estimate in thin(estimates))
    return TuneResult(policy, explain(evidence, policy, chosen, tested, alternatives), alternatives, curve)


def _empirical_best(search: Search, estimates: Sequence[Estimate], accuracy_first: bool) -> Estimate | None:
    feasible = [
        e
        for e in estimates
        if search.within_budget(e)
        and all(r <= c.bound for r, c in zip(e.risks, search.constraints, strict=True))
    ]
    if accuracy_first:
        return max(feasible, key=lambda e: (e.accuracy or 0.0, -e.usd_per_1k), default=None)
    return min(feasible, key=lambda e: (e.usd_per_1k, -(e.accuracy or 0.0)), default=None)


def _reference_alone(evidence: Evidence) -> Estimate | None:
    """Return the policy that is the reference alone, or nobody, where every target is a drop against it.

    Such a drop is zero for certain, and so are the errors of nobody.
    """
    search = evidence.search
    if not search.constraints or any(c.kind == "error" for c in search.constraints):
        return None
    candidate = evidence.fallback
    estimate = search.estimate(candidate, routed_by(search, candidate, search.sample))
    return replace(estimate, margin=float("inf"))
