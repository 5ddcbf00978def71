"""From a chosen candidate to the policy on disk: stages, certificate and expected figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contract.costs import Cost
from contract.formulas import wilson_interval
from contract.policy import Certificate, CertifiedTarget, ClassRule, Expected, Limits, Policy, Stage
from router.decide.simulate import expected_cost
from router.tune.abstain import Person
from router.tune.candidates import ESCALATE_ALL, Candidate, ClassRules
from router.tune.certify import Tested, budget_losses
from router.tune.pvalues import betting_needed_n
from router.tune.sample import Sample
from router.tune.search import Estimate, Search, routed_by
from router.tune.targets import Targets

INTERVAL = 0.95
NEEDED_CANDIDATES = 40


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a tuning run knew.

    The search on the tune part, the sample to certify on (None: uncertified), and provenance. Where a person
    is the last stage, that is what `reference` points at, and `reference_name` is still the variant.
    """

    search: Search
    reference: int
    targets: Targets
    certify: Sample | None
    n_tune: int
    delta: float
    seed: int
    data_sha256: str
    artifact_sha256: Mapping[str, str]
    created_at: str
    costs: Mapping[str, Cost]
    max_stages: int | None = None
    why_reference: str = ""
    stands_for: str | None = None
    machine: str | None = None
    overload_share: float = 0.0
    person: Person | None = None
    reference_name: str = ""
    tuning: Mapping[str, Any] | None = None

    @property
    def level(self) -> float:
        """What of delta the targets themselves are tested at: all but the overload gears' share."""
        return self.delta * (1.0 - self.overload_share)

    @property
    def fallback(self) -> Candidate:
        """What answers where nothing else may: the reference alone, or nobody."""
        if self.person is None:
            return Candidate((self.reference,), ())
        return Candidate((0, self.reference), (ESCALATE_ALL,))

    @property
    def names(self) -> tuple[str, ...]:
        """The variants, cheapest first."""
        return self.search.sample.names

    @property
    def shown(self) -> Sample:
        """The rows that figures are shown for: those held back for the certificate, else the tune part."""
        return self.search.sample if self.certify is None else self.certify


def build_policy(
    evidence: Evidence, chosen: Estimate | None, tested: Sequence[Tested], estimates: Sequence[Estimate]
) -> Policy:
    """Return the sealed policy of the chosen candidate, without gears.

    Without one it is the reference alone, with status no_safe_threshold.
    """
    candidate = evidence.fallback if chosen is None else chosen.candidate
    limit = evidence.targets.max_escalation_rate
    certified = chosen is not None and evidence.certify is not None
    return Policy(
        status="no_safe_threshold" if chosen is None else "certified" if certified else "uncertified",
        reference=evidence.reference_name,
        stages=stages_of(evidence, candidate),
        limits=Limits(max_escalation_rate=limit),
        certificate=_certificate(evidence, chosen, candidate, tested) if certified else None,
        expected=_cross_fitted(chosen)
        if chosen is not None and chosen.honest and not certified
        else expected_of(evidence, candidate),
        needed_n=needed_n(evidence, estimates) if chosen is None or _failed(chosen, tested) else None,
    ).sealed()


def _failed(chosen: Estimate, tested: Sequence[Tested]) -> bool:
    """Whether the reference alone was chosen because what was tested failed."""
    return bool(tested) and not any(t.estimate is chosen for t in tested)


def method_name(evidence: Evidence) -> str:
    """Return how the certificate is made, in words."""
    kinds = dict.fromkeys(c.method for c in evidence.search.constraints)
    if evidence.search.budgets:
        kinds["betting"] = None
    return f"fixed-sequence testing, {' and '.join(kinds)} p-value"


def needed_n(evidence: Evidence, estimates: Sequence[Estimate]) -> int | None:
    """Return about how many rows to certify with would let some cheaper candidate pass.

    Each candidate's losses on the tune part stand for those of rows to come; where by them the rows at hand
    should have been enough, the worse of both parts does. None: no number would, or these rows spoke against
    all.
    """
    search = evidence.search
    dearest = np.inf
    if evidence.targets.objective == "cheapest" and all(c.kind != "error" for c in search.constraints):
        dearest = float(search.sample.usd[evidence.reference]) if search.constraints else np.inf
    hopeful = sorted(
        (e for e in estimates if e.margin > 0 and e.usd_per_1k < dearest), key=lambda e: -e.margin
    )
    few = hopeful[:: max(1, len(hopeful) // NEEDED_CANDIDATES)]
    parts = [search.sample]
    best = min((n for e in few if (n := _needed(evidence, e, parts)) is not None), default=None)
    if best is None or evidence.certify is None or best > len(evidence.certify):
        return best
    # The rows to certify with were enough by the tune part and spoke against it: both parts are asked.
    parts.append(evidence.certify)
    both = (n for e in few if (n := _needed(evidence, e, parts)) is not None)
    return min((n for n in both if n > len(evidence.certify)), default=None)


def _needed(evidence: Evidence, estimate: Estimate, samples: Sequence[Sample]) -> int | None:
    """Return how many rows a candidate needs if those to come are like those of the worst sample."""
    search = evidence.search
    worst = 0
    for sample in samples:
        routed = routed_by(search, estimate.candidate, sample)
        found = [
            constraint.needed_n(sample, routed.chosen, constraint.losses(sample), evidence.level)
            for constraint in search.constraints
        ]
        found += [
            1 if limit >= 1.0 else betting_needed_n(values, limit, evidence.level, low=0.0)
            for values, limit in budget_losses(search, estimate, routed)
        ]
        known = [n for n in found if n is not None]
        if len(known) < len(found):
            return None
        worst = max([worst, *known])
    return worst


def stages_of(evidence: Evidence, candidate: Candidate) -> tuple[Stage, ...]:
    """Return a candidate's stages as a policy has them."""
    model = evidence.search.model
    stages = []
    last = len(candidate.chain) - 1
    for place, variant in enumerate(candidate.chain):
        name = evidence.names[variant]
        temperature = model.temperatures.get(name)
        if place == last:
            stages.append(Stage(variant=name, temperature=temperature))
            continue
        following = evidence.names[candidate.chain[place + 1]]
        parameters = model.stage_parameters(name, following)
        threshold, rules = _rules(evidence, candidate, place)
        stages.append(
            Stage(
                variant=name,
                score=model.name,
                temperature=temperature,
                threshold=threshold,
                per_class=rules,
                score_parameters=None if parameters is None else dict(parameters),
            )
        )
    return tuple(stages)


def _rules(evidence: Evidence, candidate: Candidate, place: int) -> tuple[float, dict[str, ClassRule]]:
    rule = candidate.rules[place]
    if not isinstance(rule, ClassRules):
        return rule, {}
    default = float(rule.thresholds[-1])
    following = place + 1
    rules = {}
    for index, label in enumerate(evidence.search.model.labels):
        threshold, target = float(rule.thresholds[index]), int(rule.nexts[index])
        if threshold != default or target != following:
            target_name = None if target == following else evidence.names[candidate.chain[target]]
            rules[label] = ClassRule(threshold=threshold, next=target_name)
    return default, rules


def _certificate(
    evidence: Evidence, chosen: Estimate | None, candidate: Candidate, tested: Sequence[Tested]
) -> Certificate:
    search = evidence.search
    p_value = next((t.p_value for t in tested if t.estimate is chosen), None)
    parts = tuple(
        CertifiedTarget(metric=c.metric, epsilon=c.asked, method=c.method) for c in search.constraints
    )
    parts += tuple(
        CertifiedTarget(metric=name.removeprefix("max_"), epsilon=limit, method="betting")
        for name, limit in search.budgets.items()
    )
    used = {evidence.names[variant] for variant in candidate.chain} | {evidence.reference_name}
    return Certificate(
        method=method_name(evidence)
        if p_value is not None
        else "zero drop by construction: the reference answers"
        if evidence.person is None
        else "no error by construction: nobody answers",
        metric=parts[0].metric,
        epsilon=parts[0].epsilon,
        delta=round(evidence.delta, 12),
        n_tune=evidence.n_tune,
        n_certify=0 if evidence.certify is None else len(evidence.certify),
        seed=evidence.seed,
        data_sha256=evidence.data_sha256,
        variants={
            name: evidence.artifact_sha256[name] for name in sorted(used) if name in evidence.artifact_sha256
        },
        created_at=evidence.created_at,
        p_value=p_value,
        targets=parts,
        stands_for=evidence.stands_for,
        machine=evidence.machine,
        tuning=None if evidence.tuning is None else dict(evidence.tuning),
    )


def _cross_fitted(chosen: Estimate) -> Expected:
    """Return the figures of rules that were fitted and judged on different rows."""
    n, accuracy = chosen.n_judged, chosen.accuracy
    return Expected(
        accuracy=accuracy,
        accuracy_interval=None if accuracy is None else wilson_interval(round(accuracy * n), n, INTERVAL),
        accuracy_drop=chosen.accuracy_drop,
        escalation_rate=chosen.escalation_rate,
        usd_per_1k=chosen.usd_per_1k,
        latency_ms=chosen.latency_ms,
        energy_wh_per_1k=chosen.energy_wh_per_1k,
    )


def expected_of(evidence: Evidence, candidate: Candidate) -> Expected:
    """Return what the rows that figures are shown for say of a candidate."""
    sample = evidence.shown
    routed = routed_by(evidence.search, candidate, sample)
    rows = np.arange(len(sample))
    known = sample.label >= 0
    if evidence.person is not None:
        known &= routed.chosen != evidence.reference
    n = int(known.sum())
    hits = int(sample.right[routed.chosen, rows][known].sum())
    reference_hits = int(sample.right[evidence.reference][known].sum())
    share = routed.ran.mean(axis=0)
    costs = [evidence.costs[evidence.names[variant]] for variant in candidate.chain]
    return Expected(
        accuracy=hits / n if n else None,
        accuracy_interval=wilson_interval(hits, n, INTERVAL) if n else None,
        accuracy_drop=(reference_hits - hits) / n if n and evidence.person is None else None,
        escalation_rate=float((routed.place > 0).mean()),
        usd_per_1k=expected_cost([cost.usd_per_1k for cost in costs], share),
        latency_ms=expected_cost([cost.latency_ms for cost in costs], share),
        energy_wh_per_1k=expected_cost([cost.energy_wh_per_1k for cost in costs], share),
        abstention_rate=None
        if evidence.person is None
        else float((routed.chosen == evidence.reference).mean()),
    )
