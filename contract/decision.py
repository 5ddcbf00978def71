"""What is kept of each answer: the stages that ran, their scores and cut-offs, and what was learnt later.

One `Decision` a text. `Audit` and `Feedback` come later, out of order or not at all, and are joined to it by
(request_id, index).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import pyarrow as pa

SCHEMA = 1

DegradedBy = Literal["", "deadline", "budget", "overloaded", "failed"]
"""Why a text kept a cheaper answer than the policy wanted; empty: it did not."""

Where = Literal["escalated", "degraded", "near", "wrong", "abstained"]
"""What decisions can be filtered by."""

NEAR = 0.05
"""A decision is near where a score missed or met its cut-off by at most this."""


@dataclass(frozen=True, slots=True)
class StageTaken:
    """A stage that a text went through.

    Attributes:
        variant: that gave an answer.
        score: in [0, 1], which is compared with the cut-off.
        threshold: cut-off of the predicted class; None where the stage always answers.
        label: that it predicted.
    """

    variant: str
    score: float
    threshold: float | None
    label: str

    @property
    def accepted(self) -> bool:
        """Whether its answer was good enough."""
        return self.threshold is None or self.score >= self.threshold


@dataclass(frozen=True, slots=True)
class Decision:
    """One answered text.

    Attributes:
        request_id: of the reply's `x-request-id`; one that clients send themselves may come twice.
        index: of the text in its request, from 0.
        at: Unix seconds at which the answer was ready.
        family: name that the family is served under.
        model: name that was asked for, the family's own: `cascade` or a variant.
        label: that was answered.
        confidence: of that answer, calibrated, in [0, 1].
        variant: that gave it.
        stages: that ran, in order; the last one's answer is the one that was given.
        policy_version: in force; None where a variant was asked by its name.
        escalated: a later stage than the first answered.
        degraded: a cheaper stage answered than the policy wanted; `reason` says why.
        reason: of that; empty where it is not degraded.
        abstained: no stage was sure enough, and the answer says so.
        key: name of the key that asked; empty without keys.
        latency_ms: from the arrival of the request until its answers were ready.
        usd: sum over the stages that ran; None where none of them has a price.
        text: redacted; None unless the operator has texts kept.
    """

    request_id: str
    index: int
    at: float
    family: str
    model: str
    label: str
    confidence: float
    variant: str
    stages: tuple[StageTaken, ...]
    policy_version: str | None = None
    escalated: bool = False
    degraded: bool = False
    reason: DegradedBy = ""
    abstained: bool = False
    key: str = ""
    latency_ms: float = 0.0
    usd: float | None = None
    text: str | None = None

    @property
    def margin(self) -> float | None:
        """The smallest distance of a score from its cut-off; None where there was no cut-off."""
        return min((abs(s.score - s.threshold) for s in self.stages if s.threshold is not None), default=None)

    def dump(self) -> dict[str, Any]:
        """Return its JSON form, stages as objects."""
        return asdict(self) | {"stages": [asdict(stage) for stage in self.stages]}


@dataclass(frozen=True, slots=True)
class Audit:
    """The reference's own word on a text that a cheaper stage answered.

    It stands alone, since the decision may have been dropped or have grown too old.

    Attributes:
        request_id, index: of the decision.
        at: Unix seconds at which the text was drawn.
        family: name that the family is served under.
        policy_version: that the answer was given under.
        variant: that gave it.
        answer: label that was given.
        probability: with which an answer like this one is drawn, known at that moment; in (0, 1].
        reference: variant that was asked.
        label: the reference's answer; None where it gave none.
        outcome: `answered`, or in a word why there is no answer.
    """

    request_id: str
    index: int
    at: float
    family: str
    policy_version: str
    variant: str
    answer: str
    probability: float
    reference: str
    label: str | None = None
    outcome: str = "answered"


@dataclass(frozen=True, slots=True)
class Feedback:
    """The true label of a text, as somebody told it; of several for one text the one told last counts.

    Attributes:
        request_id, index: of the decision.
        at: Unix seconds at which it was told.
        family: of the decision.
        label: one of the family's.
        key: name of the key that told it; empty without keys.
    """

    request_id: str
    index: int
    at: float
    family: str
    label: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A decision with what is known of it now: the feedback that counts, and its newest audit."""

    decision: Decision
    feedback: Feedback | None = None
    audit: Audit | None = None

    def dump(self) -> dict[str, Any]:
        """Return its JSON form: the decision's keys, `feedback` and `audit` (null where there is none)."""
        return {
            **self.decision.dump(),
            "feedback": None if self.feedback is None else asdict(self.feedback),
            "audit": None if self.audit is None else asdict(self.audit),
        }

    @classmethod
    def load(cls, raw: dict[str, Any]) -> Known:
        """Return what `dump` gave; keys that are not known here are ignored."""
        feedback, audit = raw.get("feedback"), raw.get("audit")
        told = _only(Decision, raw) | {
            "stages": tuple(StageTaken(**_only(StageTaken, s)) for s in raw["stages"])
        }
        return cls(
            Decision(**told),
            None if feedback is None else Feedback(**_only(Feedback, feedback)),
            None if audit is None else Audit(**_only(Audit, audit)),
        )


def _only(kind: Any, raw: dict[str, Any]) -> dict[str, Any]:
    return {field.name: raw[field.name] for field in fields(kind) if field.name in raw}


def reasons(decision: Decision) -> list[str]:
    """Return why it was decided so, a sentence a stage: "linear: 0.71 < 0.75: escalated to teacher"."""
    said = []
    for position, stage in enumerate(decision.stages):
        after = decision.stages[position + 1 :]
        said.append(f"{stage.variant}: {_compared(stage)}: {_outcome(after, decision)}")
    return said


def _compared(stage: StageTaken) -> str:
    if stage.threshold is None:
        return f"{stage.score:.2f}, no cut-off"
    sign = ">=" if stage.accepted else "<"
    for digits in range(2, 18):
        score, threshold = f"{stage.score:.{digits}f}", f"{stage.threshold:.{digits}f}"
        if score != threshold:
            break
    return f"{score} {sign} {threshold}"


def _outcome(after: Sequence[StageTaken], decision: Decision) -> str:
    if after:
        return f"escalated to {after[0].variant}"
    if decision.abstained:
        return "abstained"
    if decision.degraded:
        return f"its answer stands, since {_WHY[decision.reason]}"
    return "answered"


_WHY: dict[DegradedBy, str] = {
    "": "the next stage was not asked",
    "deadline": "too little time was left (deadline)",
    "budget": "the policy's budget of escalations was spent (budget)",
    "overloaded": "the next stage had no room (overloaded)",
    "failed": "the next stage failed (failed)",
}

PARQUET = pa.schema(
    [
        ("request_id", pa.string()),
        ("index", pa.int32()),
        ("at", pa.float64()),
        ("family", pa.string()),
        ("model", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float64()),
        ("variant", pa.string()),
        (
            "stages",
            pa.list_(
                pa.struct(
                    [
                        ("variant", pa.string()),
                        ("score", pa.float64()),
                        ("threshold", pa.float64()),
                        ("label", pa.string()),
                    ]
                )
            ),
        ),
        ("policy_version", pa.string()),
        ("escalated", pa.bool_()),
        ("degraded", pa.bool_()),
        ("reason", pa.string()),
        ("abstained", pa.bool_()),
        ("key", pa.string()),
        ("latency_ms", pa.float64()),
        ("usd", pa.float64()),
        ("text", pa.string()),
        ("feedback", pa.string()),
        ("feedback_at", pa.float64()),
        ("audit", pa.string()),
        ("audit_outcome", pa.string()),
        ("audit_probability", pa.float64()),
        ("audit_at", pa.float64()),
    ],
    metadata={"sluice_schema": json.dumps({"decisions": SCHEMA})},
)
"""An export: a decision, the true label that counts, and the reference's answer where it was audited."""


def table_of(known: Iterable[Known]) -> pa.Table:
    """Return decisions as rows of `PARQUET`."""
    rows = [
        {
            **one.decision.dump(),
            "feedback": None if one.feedback is None else one.feedback.label,
            "feedback_at": None if one.feedback is None else one.feedback.at,
            "audit": None if one.audit is None else one.audit.label,
            "audit_outcome": None if one.audit is None else one.audit.outcome,
            "audit_probability": None if one.audit is None else one.audit.probability,
            "audit_at": None if one.audit is None else one.audit.at,
        }
        for one in known
    ]
    return pa.Table.from_pylist(rows, schema=PARQUET)
