"""The choices beside the one taken, each with its figures on the tune part in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from router.tune.candidates import ClassRules
from router.tune.certify import Tested
from router.tune.policies import Evidence
from router.tune.search import Estimate, routed_by, thin

Verdict = Literal["chosen", "passed", "failed", "not tested", "naive"]
_RISK_NAMES = {
    "error": "error",
    "answered_error": "excess_answered_error",
    "local_disagreement": "excess_local_disagreement",
}
"""Of risks that are not their metric: of local answers they are shares of all, less the allowed one."""


@dataclass(frozen=True)
class Alternative:
    """A neighbouring choice with its figures on the tune part; p_value None where it was not tested.

    thresholds hold one number per stage but the last (the default threshold where it varies by class).
    """

    variants: tuple[str, ...]
    thresholds: tuple[float, ...]
    per_class: bool
    usd_per_1k: float
    escalation_rate: float
    accuracy: float | None
    risks: dict[str, float]
    verdict: Verdict
    p_value: float | None = None
    abstention_rate: float | None = None

    @staticmethod
    def of(
        evidence: Evidence, estimate: Estimate, verdict: Verdict = "not tested", p_value: float | None = None
    ) -> Alternative:
        """Return the alternative that an estimate describes."""
        rules = estimate.candidate.rules
        usd, left = estimate.usd_per_1k, None
        if (person := evidence.person) is not None:
            chosen = routed_by(evidence.search, estimate.candidate, evidence.search.sample).chosen
            left = float((chosen == evidence.reference).mean())
            usd -= 0.0 if person.stated else left * person.usd_per_1k
        return Alternative(
            variants=tuple(evidence.names[v] for v in estimate.candidate.chain),
            thresholds=tuple(float(r.thresholds[-1]) if isinstance(r, ClassRules) else r for r in rules),
            per_class=any(isinstance(r, ClassRules) for r in rules),
            usd_per_1k=usd,
            escalation_rate=estimate.escalation_rate,
            accuracy=estimate.accuracy,
            risks={
                _RISK_NAMES.get(c.kind, c.metric): r
                for c, r in zip(evidence.search.constraints, estimate.risks, strict=True)
            },
            verdict=verdict,
            p_value=p_value,
            abstention_rate=left,
        )

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    def sentence(self) -> str:
        """Return one line of figures."""
        parts = [f"{' -> '.join(self.variants)}"]
        if self.thresholds:
            shown = ", ".join(threshold_text(t) for t in self.thresholds)
            parts.append(f"threshold {shown}{' (by class)' if self.per_class else ''}")
        parts.append(f"{self.escalation_rate:.1%} escalate")
        if self.abstention_rate is not None:
            parts.append(f"{self.abstention_rate:.1%} left to a person")
        parts.append(f"{self.usd_per_1k:.4g} USD per 1,000")
        parts += [
            f"accuracy {1 - value:.2%}"
            if metric == "error"
            else f"disagreement {value:.2%}"
            if metric == "disagreement"
            else f"{metric} {value * 100:+.2f} points"
            for metric, value in self.risks.items()
        ]
        tail: str = "meets the target on the tune rows, untested" if self.verdict == "naive" else self.verdict
        if self.p_value is not None:
            tail += f", p = {self.p_value:.3g}"
        return ", ".join(parts) + f": {tail}"


def threshold_text(threshold: float) -> str:
    """Return a threshold as people read it."""
    if threshold > 1.0:
        return "never accepts"
    return "always accepts" if threshold <= 0.0 else f"{threshold:.4g}"


def alternatives_of(
    evidence: Evidence, chosen: Estimate | None, tested: Sequence[Tested], estimates: Sequence[Estimate]
) -> tuple[Alternative, ...]:
    """Return up to two safer and two cheaper neighbours of the choice, and the tune part's naive choice."""
    found: list[Alternative] = []
    place = next((i for i, t in enumerate(tested) if t.estimate is chosen), None)
    shown = list(tested[:3] if place is None else tested[max(0, place - 2) : place + 3])
    for t in shown:
        verdict: Verdict = "chosen" if t.estimate is chosen else "passed" if t.passed else "failed"
        found.append(Alternative.of(evidence, t.estimate, verdict, t.p_value))
    if not tested:
        found += _untested_neighbours(evidence, chosen, estimates)
    elif (naive := _naive(evidence, estimates)) is not None and all(t.estimate is not naive for t in shown):
        known = next((t for t in tested if t.estimate is naive), None)
        if known is None:
            found.append(Alternative.of(evidence, naive, "naive"))
        else:
            verdict = "passed" if known.passed else "failed"
            found.append(Alternative.of(evidence, naive, verdict, known.p_value))
    return tuple(found)


def _untested_neighbours(
    evidence: Evidence, chosen: Estimate | None, estimates: Sequence[Estimate]
) -> list[Alternative]:
    if chosen is None:
        return []
    ordered = thin(estimates)
    dearer = [e for e in ordered if e.usd_per_1k > chosen.usd_per_1k * 1.02][-2:]
    cheaper = [e for e in ordered if e.usd_per_1k < chosen.usd_per_1k * 0.98][:2]
    return [
        *(Alternative.of(evidence, e) for e in dearer),
        Alternative.of(evidence, chosen, "chosen"),
        *(Alternative.of(evidence, e) for e in cheaper),
    ]


def _naive(evidence: Evidence, estimates: Sequence[Estimate]) -> Estimate | None:
    constraints = evidence.search.constraints
    kept = [e for e in estimates if all(r <= c.bound for r, c in zip(e.risks, constraints, strict=True))]
    best = min(kept, key=lambda e: e.usd_per_1k, default=None)
    return None if best is None or best.candidate.chain == (evidence.reference,) else best
