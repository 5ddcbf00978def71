"""From labels to a policy: its stages, its certificate, what it will do, and that in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from contract.costs import Cost
from contract.policy import Certificate, CertifiedTarget, Expected, Policy, Stage
from contract.predictions import Predictions
from router.decide.scores import FloatArray, IntArray
from router.decide.simulate import expected_cost
from router.labels.certify import UNKNOWN, Certified, Step, certify
from router.labels.draw import Draw
from router.labels.pair import Pair
from router.labels.worth import Worth, worth_of
from router.tune.candidates import ACCEPT_ALL
from router.tune.settings import TuneSettings, data_hash

NEXT = 100
METHOD = "fixed-sequence testing, exact trinomial p-value, labels where accepted answers differ"


@dataclass(frozen=True, eq=False)
class LabelResult:
    """What labels came to.

    Attributes:
        policy: always there; status no_safe_threshold sends everything to the reference.
        explanation: plain-text lines for people.
        certified: the thresholds tested.
        worth: of the next 100 labels.
    """

    policy: Policy
    explanation: tuple[str, ...]
    certified: Certified
    worth: Worth

    @property
    def met(self) -> bool:
        """Whether a threshold is certified (else `sluice label` exits 3)."""
        return self.policy.status == "certified"


def loss_of(label: int, cheap: int, reference: int) -> int:
    """Return 1 where only the reference is right, -1 where only the cheap variant is, else 0."""
    return int(reference == label) - int(cheap == label)


def savings_of(pair: Pair, costs: Mapping[str, Cost]) -> FloatArray:
    """Return [J] the share of the reference's cost that each threshold of the path saves."""
    cheap, reference = (costs[name].usd_per_1k for name in (pair.cheap, pair.reference))
    return np.asarray(1.0 - (cheap + pair.escalation() * reference) / reference)


def result_of(
    pair: Pair,
    draw: Draw,
    losses: IntArray,
    predictions: Predictions,
    costs: Mapping[str, Cost],
    settings: TuneSettings,
    epsilon: float,
) -> LabelResult:
    """Return the policy that the labels certify, with its explanation.

    Args:
        pair, draw, losses: as in `certify`.
        predictions: the whole table, which the certificate is bound to.
        costs: by variant.
        settings: reference, confidence, seed, provenance.
        epsilon: accuracy drop.
    """
    delta = round(1.0 - settings.confidence, 12)
    found = certify(pair, draw, losses, epsilon, delta)
    savings = savings_of(pair, costs)
    worth = worth_of(
        pair, draw, losses, found, savings, labels=NEXT, epsilon=epsilon, delta=delta, seed=settings.seed
    )
    best = found.best
    if best is not None and savings[best.place] <= 0.0:
        best = None
    policy = Policy(
        status="no_safe_threshold" if best is None else "certified",
        reference=pair.reference,
        stages=_stages(pair, best),
        certificate=None
        if best is None
        else Certificate(
            method=METHOD,
            epsilon=epsilon,
            delta=delta,
            n_tune=pair.n_path,
            n_certify=draw.n,
            n_labels=int((losses != UNKNOWN).sum()),
            seed=settings.seed,
            data_sha256=data_hash(predictions),
            variants={
                name: settings.artifact_sha256[name]
                for name in sorted((pair.cheap, pair.reference))
                if name in settings.artifact_sha256
            },
            created_at=settings.created_at,
            p_value=best.p_value,
            targets=(CertifiedTarget(metric="accuracy_drop", epsilon=epsilon, method=METHOD),),
            stands_for=settings.stands_for if pair.reference == settings.teacher else None,
            machine=settings.machine,
        ),
        expected=_expected(pair, draw.n, best, costs),
    ).sealed()
    lines = _explanation(pair, draw, losses, found, best, policy, worth, epsilon, settings.confidence)
    return LabelResult(policy, lines, found, worth)


def _stages(pair: Pair, best: Step | None) -> tuple[Stage, ...]:
    temperatures = pair.model.temperatures
    last = Stage(variant=pair.reference, temperature=temperatures.get(pair.reference))
    if best is None:
        return (last,)
    if best.threshold <= ACCEPT_ALL:
        return (Stage(variant=pair.cheap, temperature=temperatures.get(pair.cheap)),)
    parameters = pair.model.stage_parameters(pair.cheap, pair.reference)
    first = Stage(
        variant=pair.cheap,
        score=pair.model.name,
        temperature=temperatures.get(pair.cheap),
        threshold=best.threshold,
        score_parameters=None if parameters is None else dict(parameters),
    )
    return (first, last)


def _expected(pair: Pair, n: int, best: Step | None, costs: Mapping[str, Cost]) -> Expected:
    cheap, reference = costs[pair.cheap], costs[pair.reference]
    if best is None:
        return Expected(
            accuracy_drop=0.0,
            escalation_rate=0.0,
            usd_per_1k=reference.usd_per_1k,
            latency_ms=reference.latency_ms,
            energy_wh_per_1k=reference.energy_wh_per_1k,
        )
    alone = best.threshold <= ACCEPT_ALL
    escalation = 0.0 if alone else float(pair.escalation()[best.place])
    share = np.array([1.0, escalation])

    def cost(name: str) -> float | None:
        return expected_cost([getattr(cheap, name), getattr(reference, name)], share)

    drop = (best.plus - best.minus) / n
    return Expected(
        accuracy_drop=drop,
        escalation_rate=escalation,
        usd_per_1k=cost("usd_per_1k"),
        latency_ms=cost("latency_ms"),
        energy_wh_per_1k=cost("energy_wh_per_1k"),
    )


def _explanation(
    pair: Pair,
    draw: Draw,
    losses: IntArray,
    found: Certified,
    best: Step | None,
    policy: Policy,
    worth: Worth,
    epsilon: float,
    confidence: float,
) -> tuple[str, ...]:
    given = int((losses != UNKNOWN).sum())
    lines = [
        f"{pair.cheap!r} goes before the reference {pair.reference!r}; {given} of {len(draw)} rows "
        "have a label."
    ]
    if best is None:
        lines.append(f"No safe threshold: every request goes to {pair.reference!r}.")
    else:
        rule = (
            "answers everything"
            if best.threshold <= ACCEPT_ALL
            else f"answers when its {pair.model.name} is {best.threshold:.4g} or more"
        )
        drop = policy.expected.accuracy_drop or 0.0
        passed = sum(step.passed for step in found.steps)
        lines += [
            f"{pair.cheap!r} {rule}; {policy.expected.escalation_rate or 0.0:.1%} of requests escalate, "
            f"which saves {worth.now:.0%} of what {pair.reference!r} alone costs.",
            f"How sure: with {confidence:.0%} confidence the accuracy drop is under {epsilon * 100:.4g} "
            f"points, for traffic like these data; exact trinomial test on {draw.n} of {len(pair)} rows "
            f"without a label, of which {best.labels} are accepted and differ, and have one "
            f"(p = {best.p_value:.3g}; {passed} of {len(found.steps)} thresholds tested passed). On these "
            f"rows "
            f"the drop is {drop * 100:.2f} points.",
        ]
    lines.append(_next(pair, found, worth))
    return tuple(lines)


def _next(pair: Pair, found: Certified, worth: Worth) -> str:
    if found.exhausted and found.steps and found.steps[-1].place == len(pair.path) - 1:
        return "More labels would bring nothing: every threshold passed."
    takes = f" and about {worth.rows:,} rows more without one" if worth.rows else ""
    return (
        f"The next {worth.labels} labels{takes} would be worth: {worth.expected:.0%} saved, certified, in "
        f"place of {worth.now:.0%} (80% of simulated outcomes: {worth.low:.0%} to {worth.high:.0%})."
    )
