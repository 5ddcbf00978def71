"""Tuning: from predictions, costs and targets to a policy with its certificate, its explanation and its
neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from contract.errors import InputError, PredictionsError
from contract.files import sha256_of_bytes
from contract.policy import Policy
from contract.predictions import Cost, Predictions
from router.board import by_cost, fit_scores, make_board
from router.candidates import Candidate, route
from router.certify import Tested, budget_sequence, fixed_sequence, sequence_of
from router.explain import Alternative, alternatives_of, explain, thin
from router.perclass import per_class_estimates
from router.policies import Evidence, build_policy
from router.scores import SCORE_NAMES
from router.search import Estimate, Search, grid_estimates, make_search, refine
from router.targets import Method, Targets, check_budgets, constraints_of


@dataclass(frozen=True)
class TuneSettings:
    """How to tune.

    Attributes:
        reference: the variant that drops are counted against; None is the most accurate on the tune part.
        variants: which variants may take part; None is all.
        confidence: 1 - delta of the certificate.
        certified: False picks the empirical optimum (`--uncertified`).
        score: one of router.scores.SCORE_NAMES.
        method: betting on the net loss, exact binomial on harm, or on disagreement with the reference
        (needs no labels).
        per_class: "auto" lets a stage's threshold and next stage depend on its predicted class where that
        pays. certify_share: share of rows kept for the certificate where the table has no split column.
        artifact_sha256: hash of each variant's artifact, bound into the certificate.
        created_at: text put into the certificate (this module has no clock).
    """

    reference: str | None = None
    variants: tuple[str, ...] | None = None
    confidence: float = 0.9
    certified: bool = True
    score: str = "max_probability"
    method: Method = "betting"
    per_class: Literal["auto", "never"] = "auto"
    max_stages: int | None = None
    seed: int = 0
    certify_share: float = 0.6
    allow_always_escalate: bool = False
    artifact_sha256: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""


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
    names = _checked_names(predictions, costs, targets, given)
    tune_part, certify_part = split_parts(predictions, given)
    ordered = by_cost(names, costs, tune_part)
    reference = given.reference or _most_accurate(tune_part, ordered)
    method: Method = given.method if (predictions.label >= 0).any() else "disagreement"
    constraints = constraints_of(targets, predictions, ordered.index(reference), method)
    if method != "disagreement":
        tune_part = _labelled(tune_part, "tune")
        certify_part = None if certify_part is None else _labelled(certify_part, "certify")
    model = fit_scores(tune_part, ordered, given.score, seed=given.seed)
    usd = {name: costs[name].usd_per_1k for name in ordered}
    board = make_board(tune_part, ordered, usd, model)
    search = make_search(board, model, constraints, costs, targets.budgets(), ordered.index(reference))
    evidence = Evidence(
        search=search,
        reference=ordered.index(reference),
        targets=targets,
        certify=None if certify_part is None else make_board(certify_part, ordered, usd, model),
        n_tune=len(tune_part),
        delta=1.0 - given.confidence,
        seed=given.seed,
        data_sha256=predictions.sha256 or _hash(predictions),
        artifact_sha256=given.artifact_sha256,
        created_at=given.created_at,
        costs=costs,
    )
    for part, rows in (("tune", board), ("certify", evidence.certify)):
        for constraint in constraints:
            if rows is not None and not constraint.rows(rows).any():
                raise PredictionsError(f"the {part} part has no row for the target {constraint.metric}")
    estimates = _candidates(search, targets, given)
    if given.certified:
        return _certified(evidence, estimates, given)
    return _uncertified(evidence, estimates)


def split_parts(predictions: Predictions, settings: TuneSettings) -> tuple[Predictions, Predictions | None]:
    """Return the rows to tune on and to certify with; without a certificate all of both are for tuning.
    `test` is never read.
    """
    if predictions.split is not None:
        if settings.certified:
            return predictions.rows_of("tune"), predictions.rows_of("certify")
        present = [name for name in ("tune", "certify") if (predictions.split == name).any()]
        return predictions.rows_of(*(present or ["tune"])), None
    if not settings.certified:
        return predictions, None
    rows = np.random.default_rng(settings.seed).permutation(len(predictions))
    cut = len(rows) - round(settings.certify_share * len(rows))
    if not 0 < cut < len(rows):
        raise PredictionsError(
            f"{len(rows)} rows at a certify share of {settings.certify_share:g} leave a part empty",
            hint="give more rows, or another --certify-share",
        )
    return predictions.take(np.sort(rows[:cut])), predictions.take(np.sort(rows[cut:]))


def _candidates(search: Search, targets: Targets, settings: TuneSettings) -> list[Estimate]:
    accuracy_first = targets.objective == "most_accurate" or not search.constraints
    found = grid_estimates(search, max_stages=settings.max_stages, accuracy_first=accuracy_first)
    if settings.per_class == "auto" and search.labelled and settings.score not in {"agreement", "deferral"}:
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
    search, board = evidence.search, evidence.certify
    if board is None:
        raise InputError("a certificate needs rows to certify with")
    order = np.random.default_rng(evidence.seed).permutation(len(board))
    if not search.constraints:
        cheapest_first = sorted(thin(estimates), key=lambda e: e.usd_per_1k)
        tested = budget_sequence(search, cheapest_first, board, order, evidence.delta)
        passed = [t for t in tested if t.passed]
        best = max(passed, key=lambda t: t.estimate.accuracy or 0.0, default=None)
        return _result(evidence, None if best is None else best.estimate, tested, estimates)
    trivial = _reference_alone(evidence)
    sequence = sequence_of(estimates, len(board), trivial)
    if trivial is not None and not sequence:
        cheaper = [e for e in estimates if e.usd_per_1k < trivial.usd_per_1k]
        if not cheaper and search.within_budget(trivial):
            return _result(evidence, trivial, [], estimates)
    tested = fixed_sequence(search, sequence, board, order, evidence.delta)
    passed = [t for t in tested if t.passed]
    if evidence.targets.objective == "most_accurate":
        best = max(passed, key=lambda t: t.estimate.accuracy or 0.0, default=None)
    else:
        best = min(passed, key=lambda t: t.estimate.usd_per_1k, default=None)
    chosen = None if best is None else best.estimate
    if (
        chosen is None
        and trivial is not None
        and settings.allow_always_escalate
        and search.within_budget(trivial)
    ):
        chosen = trivial
    return _result(evidence, chosen, tested, estimates)


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
        and all(r <= c.epsilon for r, c in zip(e.risks, search.constraints, strict=True))
    ]
    if accuracy_first:
        return max(feasible, key=lambda e: (e.accuracy or 0.0, -e.usd_per_1k), default=None)
    return min(feasible, key=lambda e: (e.usd_per_1k, -(e.accuracy or 0.0)), default=None)


def _reference_alone(evidence: Evidence) -> Estimate | None:
    """Return the policy that is the reference alone where every target is a drop against it, which is then
    zero for certain.
    """
    search = evidence.search
    if any(c.kind == "error" for c in search.constraints):
        return None
    candidate = Candidate((evidence.reference,), ())
    return replace(search.estimate(candidate, route(candidate, search.board, [])), margin=float("inf"))


def _checked_names(
    predictions: Predictions, costs: Mapping[str, Cost], targets: Targets, settings: TuneSettings
) -> tuple[str, ...]:
    names = settings.variants or predictions.names
    for name in (*names, *((settings.reference,) if settings.reference else ())):
        if name not in predictions.variants:
            raise PredictionsError(
                f"there is no variant {name!r} in the predictions",
                hint=f"variants: {', '.join(predictions.names)}",
            )
        if name not in costs:
            raise PredictionsError(
                f"the costs lack variant {name!r}",
                where="costs",
                hint=f"costs are known of: {', '.join(costs)}",
            )
    if settings.reference and settings.reference not in names:
        names = (*names, settings.reference)
    if len(set(names)) != len(names):
        raise InputError("a variant is named twice")
    if not 0.5 <= settings.confidence < 1.0:
        raise InputError(f"the confidence is {settings.confidence:g}; it must be at least 0.5 and under 1")
    if settings.score not in SCORE_NAMES:
        raise InputError(f"there is no score {settings.score!r}", hint=f"scores: {', '.join(SCORE_NAMES)}")
    if not targets.has_quality and not targets.budgets():
        raise InputError(
            "no target was given",
            hint="--max-accuracy-drop 0.01, or --max-usd-per-1k with --objective most_accurate",
        )
    check_budgets(targets, names, costs)
    return names


def _most_accurate(predictions: Predictions, names: Sequence[str]) -> str:
    if not (predictions.label >= 0).any():
        raise InputError("without labels there is no most accurate variant", hint="name the --reference")
    return max(names, key=lambda name: float(predictions.correct(name).mean()))


def _labelled(predictions: Predictions, part: str) -> Predictions:
    known = predictions.label >= 0
    if known.all():
        return predictions
    if not known.any():
        raise PredictionsError(f"no row of the {part} part has a label")
    return predictions.take(known)


def _hash(predictions: Predictions) -> str:
    parts = [predictions.label.tobytes()]
    for name, variant in predictions.variants.items():
        parts += [name.encode(), variant.prediction.tobytes(), variant.confidence.tobytes()]
    return sha256_of_bytes(b"".join(parts))
