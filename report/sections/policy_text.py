"""A policy in plain words: who answers, who escalates, what is certified and what is only expected."""

from __future__ import annotations

from contract.policy import ABSTAIN, CertifiedTarget, Policy, Stage
from report.format.figures import percent, percent_interval, plain, points, short_hash, significant

SCORES = {
    "max_probability": "its highest class probability",
    "margin": "the lead of its best class over the second",
    "entropy": "its certainty (one less its normalised entropy)",
    "per_class": "how often it is right when it says that class this surely",
    "deferral": "its learned deferral score",
    "agreement": "its agreement with the stages before it",
}


def path_in_words(policy: Policy) -> tuple[str, ...]:
    """Return what happens to a request, one sentence per stage and per class rule."""
    if len(policy.stages) == 1:
        return (f"Every text is answered by {policy.stages[0].variant}.",)
    said = []
    for index, stage in enumerate(policy.stages):
        if index == len(policy.stages) - 1:
            said.append(
                "What no stage is sure of gets no answer, and is left to a person."
                if policy.abstains
                else f"At last, {stage.variant} answers whatever reaches it."
            )
            continue
        following = policy.stages[index + 1].variant
        who = "Every text goes first to" if index == 0 else "What reaches it is asked of"
        heat = "" if stage.temperature is None else f" (logits divided by {plain(stage.temperature)})"
        said.append(
            f"{who} {stage.variant}. Its answer is given when {SCORES[stage.score]}{heat} "
            f"is {plain(stage.threshold, 4)} or more; else "
            + ("nobody answers." if following == ABSTAIN else f"the text escalates to {following}.")
        )
        said += _class_rules(stage, following)
    return tuple(said)


def _class_rules(stage: Stage, following: str) -> list[str]:
    return [
        f"Where {stage.variant} says {label!r}, the threshold is {plain(rule.threshold, 4)}"
        + (f", and the text escalates to {rule.next}." if rule.next not in {None, following} else ".")
        for label, rule in stage.per_class.items()
    ]


def certificate_in_words(policy: Policy) -> tuple[str, ...]:
    """Return what is guaranteed, by what, on which data, and what would end the guarantee."""
    held = policy.certificate
    if policy.status == "no_safe_threshold":
        need = (
            f" About {policy.needed_n:,} labelled rows to certify with would be enough."
            if policy.needed_n
            else " The data do not suggest that more rows would change that."
        )
        where = "nobody answers anything" if policy.abstains else f"everything goes to {policy.reference}"
        return (f"No threshold is safe: {where}.{need}",)
    if policy.status == "uncertified" or held is None:
        return (
            "Nothing is certified: the thresholds did best on the data they were chosen on, "
            "and may do worse on others.",
        )
    promised = held.targets or (
        CertifiedTarget(metric=held.metric, epsilon=held.epsilon, method=held.method),
    )
    asked = " and ".join(_promise(target, policy.reference, abstains=policy.abstains) for target in promised)
    p_value = "" if held.p_value is None else f", p = {significant(held.p_value, 2)}"
    return (
        f"Certified: with {percent(1 - held.delta, 0)} confidence {asked}, "
        f"for texts like the {held.n_certify:,} it was certified on{_whatever(policy)}.",
        f"Method: {held.method}{p_value}. Thresholds were chosen on "
        + (f"{held.n_tune:,} other rows (seed {held.seed})." if held.n_tune else "no row's label."),
        "It binds the data "
        + short_hash(held.data_sha256)
        + (
            " and the artifacts "
            + ", ".join(f"{name} {short_hash(sha256)}" for name, sha256 in held.variants.items())
            if held.variants
            else ""
        )
        + ". Another build of a variant, or traffic of another kind, ends it.",
    )


def _whatever(policy: Policy) -> str:
    """Return which changes of the mix are covered."""
    if policy.mix is None:
        return ""
    if policy.mix.by == "label":
        return f", at any share of {policy.mix.cells[0].name!r} up to {percent(policy.mix.most or 0.0)}"
    return f", whatever the mix of its {len(policy.mix.cells)} cells by {policy.mix.by}"


def _promise(target: CertifiedTarget, reference: str, *, abstains: bool) -> str:
    name = target.metric.replace("_", " ")
    if target.metric == "min_accuracy":
        return f"the accuracy is at least {percent(target.epsilon)}"
    if "drop" in target.metric:
        limit = f"{points(target.epsilon).lstrip('+')} points"
        return f"the {name} against {reference} is at most {limit}"
    if target.metric == "disagreement":
        return f"at most {percent(target.epsilon)} of answers are not those of {reference}"
    if target.metric == "answered_error":
        told = "differ" if "disagreement" in target.method else "are wrong"
        whose = "the answers that are given" if abstains else f"the answers that {reference} does not give"
        return f"at most {percent(target.epsilon)} of {whose} {told}"
    if target.metric == "local_disagreement":
        return f"at most {percent(target.epsilon)} of the answers that {reference} does not give differ"
    if target.metric == "escalation_rate":
        return f"at most {percent(target.epsilon)} of texts escalate"
    words = {
        "usd_per_1k": "the cost of 1,000 requests is at most {} USD",
        "latency_ms": "the mean path takes at most {} ms of model time",
        "energy_wh_per_1k": "1,000 requests take at most {} Wh",
    }
    return words.get(target.metric, f"the {name} is at most {{}}").format(significant(target.epsilon))


def gears_in_words(policy: Policy) -> tuple[str, ...]:
    """Return what each gear of a ladder promises and what it is expected to do; empty without one."""
    if not policy.gears:
        return ()
    said = ["Load alone moves it along a ladder of gears, whose promises hold together:"]
    for gear in policy.gears:
        expected, parts = gear.expected, [f"at most {points(gear.epsilon).lstrip('+')} points are lost"]
        if expected.escalation_rate is not None:
            parts.append(f"{percent(expected.escalation_rate)} of texts escalate")
        if expected.usd_per_1k is not None:
            parts.append(f"1,000 texts cost {significant(expected.usd_per_1k)} USD")
        said.append(f"{gear.name}: {', '.join(parts)}.")
    return tuple(said)


def expected_in_words(policy: Policy) -> tuple[str, ...]:
    """Return what the tuning data say the policy will do, leaving out what they do not say."""
    expected = policy.expected
    parts = []
    if expected.escalation_rate is not None:
        parts.append(f"{percent(expected.escalation_rate)} of texts escalate")
    if expected.abstention_rate is not None:
        parts.append(f"{percent(expected.abstention_rate)} are left to a person")
    if expected.accuracy is not None:
        among = "" if expected.abstention_rate is None else " of the others"
        right = percent_interval(expected.accuracy, expected.accuracy_interval)
        parts.append(f"{right}{among} are answered right")
    if expected.accuracy_drop is not None:
        parts.append(f"{points(-expected.accuracy_drop)} points against {policy.reference}")
    if expected.usd_per_1k is not None:
        parts.append(f"a million requests cost {significant(1000 * expected.usd_per_1k)} USD")
    if expected.latency_ms is not None:
        parts.append(f"the mean path takes {significant(expected.latency_ms)} ms of model time")
    if expected.energy_wh_per_1k is not None:
        parts.append(f"1,000 requests take {significant(expected.energy_wh_per_1k)} Wh")
    limits = []
    if policy.limits.deadline_ms is not None:
        limits.append(f"a request that cannot escalate within {significant(policy.limits.deadline_ms)} ms")
    if policy.limits.max_escalation_rate is not None:
        limits.append(f"escalation beyond {percent(policy.limits.max_escalation_rate)} of requests")
    said = [f"Expected on live traffic like the tuning data: {'; '.join(parts)}."] if parts else []
    if limits:
        said.append(f"Answered cheaply instead, and marked degraded: {' and '.join(limits)}.")
    return tuple(said)
