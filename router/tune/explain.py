"""The explanation in plain words: what a policy does, saves and risks, how sure that is, and what is near."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contract.policy import ABSTAIN, Policy
from router.tune.alternatives import Alternative
from router.tune.candidates import Candidate, chain_counts
from router.tune.certify import Tested
from router.tune.policies import Evidence, method_name
from router.tune.search import Estimate, routed_by
from router.tune.targets import LOCAL
from router.tune.worth import worth_of_rows


def explain(
    evidence: Evidence,
    policy: Policy,
    chosen: Estimate | None,
    tested: Sequence[Tested],
    alternatives: Sequence[Alternative],
) -> tuple[str, ...]:
    """Return the explanation as lines of plain text."""
    reference = policy.reference
    lines = _measure(evidence)
    if chosen is None:
        lines += _nothing_safe(evidence, policy, tested)
    elif len(policy.stages) == 1:
        lines.append(_do_not_route(policy, tested))
        if policy.needed_n is not None and evidence.certify is not None:
            lines += _how_many(evidence, policy, tested)
    else:
        lines += _who_answers(policy)
        lines += _who_escalates(evidence, chosen.candidate)
    expected = policy.expected
    if chosen is not None and expected.usd_per_1k is not None:
        alone = 0.0 if evidence.person else evidence.costs[reference].usd_per_1k
        unpriced = evidence.person is not None and not evidence.person.stated
        person = ", a person's answers aside" if unpriced else ""
        share = 1 - expected.usd_per_1k / alone if alone > 0 else 0.0
        saving = f", {share:.0%} less than {reference!r} alone ({alone:.4g})" if share >= 0.005 else ""
        lines.append(f"What it costs: {expected.usd_per_1k:.4g} USD per 1,000 requests{saving}{person}.")
    if chosen is not None:
        lines.append(_risk(evidence, policy, chosen))
    lines += _sure(evidence, policy, chosen, tested)
    searched, every = chain_counts(len(evidence.names), evidence.max_stages)
    if searched < every:
        lines.append(
            f"Of {every} possible cascades the {searched} with the fewest stages, and all, were searched."
        )
    if alternatives:
        lines.append("The choices beside it (figures of the tune part):")
        lines += [f"  {alternative.sentence()}" for alternative in alternatives]
    return tuple(lines)


def _measure(evidence: Evidence) -> list[str]:
    """Return what answers are compared with."""
    person, reference = evidence.person, evidence.reference_name
    if person is None:
        told = f"The reference is {reference!r}: {evidence.why_reference}."
        return [told, *_better_than_reference(evidence)]
    if person.judge is None:
        return ["What no stage is sure of is left to a person; what is answered is held against the labels."]
    return [
        f"What no stage is sure of is left to a person. No row has a label: what is answered counts as wrong "
        f"where {person.judge!r} says otherwise ({evidence.why_reference}), which answers nothing itself."
    ]


def _better_than_reference(evidence: Evidence) -> list[str]:
    """Return a line where a variant is right more often than the reference by more than chance explains."""
    sample = evidence.search.sample
    known = sample.label >= 0
    n = int(known.sum())
    if n == 0:
        return []
    gain = sample.right[:, known].astype(np.float64) - sample.right[evidence.reference, known]
    mean, error = gain.mean(axis=1), gain.std(axis=1) / np.sqrt(n)
    best = int(mean.argmax())
    if mean[best] <= 2.6 * error[best] or mean[best] <= 0:
        return []
    return [
        f"On the {n} rows tuned on {evidence.names[best]!r} is right more often, by "
        f"{mean[best] * 100:.1f} points: --reference {evidence.names[best]} counts drops against it."
    ]


def _nothing_safe(evidence: Evidence, policy: Policy, tested: Sequence[Tested]) -> list[str]:
    where = f"every request goes to {policy.reference!r}" if evidence.person is None else "nobody answers"
    lines = [f"No safe threshold: {where}."]
    if evidence.certify is None:
        lines.append("No combination of variants and thresholds keeps all targets on these rows.")
        return lines
    n = len(evidence.certify)
    if tested:
        first = tested[0]
        lines.append(
            f"The safest candidate already failed on the {n} rows to certify with: "
            f"{Alternative.of(evidence, first.estimate, 'failed', first.p_value).sentence()}."
        )
    return lines + _how_many(evidence, policy, tested)


def _how_many(evidence: Evidence, policy: Policy, tested: Sequence[Tested]) -> list[str]:
    n = 0 if evidence.certify is None else len(evidence.certify)
    needed, worth = policy.needed_n, worth_of_rows(evidence, tested)
    told = [] if worth is None else [worth]
    if needed is not None:
        return [
            f"About {needed} labelled rows to certify with would be needed, "
            f"{needed - n} more than the {n} now.",
            *told,
        ]
    if tested:
        return [
            f"The {n} rows to certify with lost more than the {evidence.n_tune} rows tuned on had led to "
            "expect, so no number of rows to certify with can be named. What helps: more rows to tune on, "
            "which choose candidates that hold; a wider target; a better cheap variant. Drawing the parts "
            "anew until one passes proves nothing.",
            *told,
        ]
    return [
        "More labelled rows would not help: no cheaper candidate keeps the targets even on the tune part."
    ]


def _do_not_route(policy: Policy, tested: Sequence[Tested]) -> str:
    only = policy.stages[0].variant
    if only == policy.reference and tested and not any(t.passed for t in tested):
        return (
            f"Do not route: {only!r} answers everything; no cascade could be shown to be cheaper and "
            "keep the targets."
        )
    if only == policy.reference:
        return f"Do not route: {only!r} answers everything; no cascade is cheaper and keeps the targets."
    return f"Do not route: {only!r} alone keeps the targets and is cheaper than any cascade that does."


def _who_answers(policy: Policy) -> list[str]:
    lines = []
    for stage, following in zip(policy.stages, policy.stages[1:], strict=False):
        threshold = stage.threshold or 0.0
        rule = (
            f"{stage.variant!r} never answers by itself"
            if threshold > 1
            else f"{stage.variant!r} answers whenever it is asked"
            if threshold <= 0
            else f"{stage.variant!r} answers when its {stage.score} is {threshold:.4g} or more"
        )
        classes = f" ({len(stage.per_class)} classes have rules of their own)" if stage.per_class else ""
        left = f"goes to {following.variant!r}" if following.variant != ABSTAIN else "is left to a person"
        lines.append(f"{rule}{classes}; what it does not answer {left}.")
    return lines


def _who_escalates(evidence: Evidence, candidate: Candidate) -> list[str]:
    sample = evidence.shown
    routed = routed_by(evidence.search, candidate, sample)
    escalated = routed.place > 0
    lines = [
        f"Who escalates: {escalated.mean():.1%} of requests ({int(escalated.sum())} of {len(sample)} rows); "
        "answered by "
        + ", ".join(
            f"{evidence.names[v]!r} {np.mean(routed.place == place):.1%}"
            for place, v in enumerate(candidate.chain)
        )
        + "."
    ]
    first = sample.answers[candidate.chain[0]]
    count = np.bincount(first, minlength=sample.classes + 1)[: sample.classes]
    rate = np.bincount(first, escalated, sample.classes + 1)[: sample.classes] / np.maximum(count, 1)
    common = np.flatnonzero(count >= max(10, len(sample) // 200))
    top = [
        index
        for index in common[np.argsort(-rate[common])][:3].tolist()
        if rate[index] > 1.2 * escalated.mean()
    ]
    if top:
        labels = evidence.search.model.labels
        lines.append(
            "Most often escalated are first answers of "
            + ", ".join(f"{labels[index]!r} ({rate[index]:.0%})" for index in top)
            + "."
        )
    return lines


def _risk(evidence: Evidence, policy: Policy, chosen: Estimate | None) -> str:
    expected = policy.expected
    if evidence.certify is not None:
        rows = "held back from tuning"
    elif chosen is not None and chosen.honest:
        rows = "tuned on, each judged by rules fitted without it"
    else:
        rows = "tuned on, so expect a little worse"
    if evidence.person is not None and expected.abstention_rate is not None:
        right = "unknown" if expected.accuracy is None else f"{expected.accuracy:.2%}"
        return (
            f"What it risks: {expected.abstention_rate:.1%} of requests get no answer; accuracy of the "
            f"others {right}, on the {len(evidence.shown)} rows {rows}."
        )
    if expected.accuracy is None or expected.accuracy_interval is None or expected.accuracy_drop is None:
        return f"What it risks: unknown in accuracy, since no row ({rows}) has a label."
    low, high = expected.accuracy_interval
    return (
        f"What it risks: accuracy {expected.accuracy:.2%} (95% interval {low:.2%} to {high:.2%}), "
        f"{abs(expected.accuracy_drop) * 100:.2f} points "
        f"{'below' if expected.accuracy_drop >= 0 else 'above'} "
        f"{policy.reference!r}, on the {len(evidence.shown)} rows {rows}."
    )


def _sure(evidence: Evidence, policy: Policy, chosen: Estimate | None, tested: Sequence[Tested]) -> list[str]:
    if chosen is None:
        return []
    if evidence.certify is None:
        return [
            "How sure: not certified. The thresholds are the best on these very rows; on new traffic "
            "the drop exceeds the target about as often as not."
        ]
    certificate = policy.certificate
    if certificate is None or certificate.p_value is None:
        why = "the reference gives every answer" if evidence.person is None else "nobody answers"
        return [f"How sure: certain, since {why}."]
    constraints = evidence.search.constraints
    budgets = [
        f"{name.removeprefix('max_')} under {limit:.4g}" for name, limit in evidence.search.budgets.items()
    ]
    asked = " and ".join([c.in_words for c in constraints] + budgets)
    lines = [
        f"How sure: with {1 - certificate.delta:.0%} confidence {asked}, for traffic like these data; "
        f"{method_name(evidence)} on {certificate.n_certify} rows that tuning never saw "
        f"(p = {certificate.p_value:.3g}; {sum(t.passed for t in tested)} of {len(tested)} tested passed)."
    ]
    if any(c.kind == "disagreement" for c in constraints):
        lines.append(
            "Without labels the drop is bounded by how often the answers differ from the reference's, "
            "which labels would show to be less."
            if not (evidence.shown.label >= 0).any()
            else "The drop is bounded by how often the answers differ from the reference's."
        )
    if evidence.person is None and any(c.kind in LOCAL for c in constraints):
        lines.append(f"Local answers are those that {policy.reference!r} does not give.")
    if evidence.person is None and any(
        (c.metric, c.kind) == ("answered_error", "local_disagreement") for c in constraints
    ):
        lines.append("No row has a label: a local answer counts as wrong where the reference's is another.")
    if certificate.machine is not None:
        lines.append(
            f"It is about answers given on {certificate.machine}; `sluice serve` looks at start whether its "
            "processor gives them too."
        )
    return lines
