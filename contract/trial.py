"""A trial of a candidate beside the policy in force: the rule of its verdict, and the counts behind it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from contract.metrics import LATENCY_BUCKETS_S
from contract.records import Frozen

ArmName = Literal["live", "canary", "shadow"]
TrialKind = Literal["canary", "shadow"]
Yardstick = Literal["reference", "agreement"]
Auto = Literal["off", "withdraw", "both"]
Decision = Literal["promote", "withdraw", "undecided"]
Reason = Literal["no_worse", "worse", "errors", "slow", "open"]

SLOW_SHARE = 0.01
"""Requests over the objective that a p99 within it allows."""


class VerdictRule(Frozen):
    """When a candidate is good enough, when it is not, and how sure that has to be."""

    no_worse_than: float = Field(
        default=0.01, gt=0, lt=1, description="Largest drop that may be; a fraction: 0.01 is one point"
    )
    confidence: float = Field(default=0.9, ge=0.5, lt=1)
    measured_by: Yardstick = Field(
        default="reference",
        description="reference: where the arms differ, who agrees with the reference; agreement: they differ",
    )
    audit_share: float = Field(
        default=1.0, gt=0, le=1, description="Share of differing texts that are put to the reference"
    )
    max_error_rate: float | None = Field(
        default=None, gt=0, lt=1, description="Withdraw when surely more of the candidate's requests fail"
    )
    objective_ms: float | None = Field(
        default=None, gt=0, description="Withdraw when the candidate's p99 is surely beyond"
    )


class PairCounts(Frozen):
    """Texts that both arms were to answer, by what came of it.

    Attributes:
        same: both gave the same answer.
        unasked: they differ, and the reference was not asked.
        worse, better, neither: they differ, and the reference's answer is the live policy's, the
            candidate's, or a third.
        unresolved: the comparison was begun and not finished: a stage failed, or was too late, or the canary
            itself refused its client, or answered by a cheaper stage than it wanted for want of time or room.
        shed, busy: not begun, before anything was known of the text: no room in the queue; machine busy, or
            the first stage had no place for it.
        degraded: not begun, since the live policy answered its client by a cheaper stage than it wanted, and
            not by its own budget of escalations.
    """

    same: int = Field(default=0, ge=0)
    unasked: int = Field(default=0, ge=0)
    worse: int = Field(default=0, ge=0)
    better: int = Field(default=0, ge=0)
    neither: int = Field(default=0, ge=0)
    unresolved: int = Field(default=0, ge=0)
    shed: int = Field(default=0, ge=0)
    busy: int = Field(default=0, ge=0)
    degraded: int = Field(default=0, ge=0)

    @property
    def n(self) -> int:
        """Texts whose comparison was begun."""
        return self.same + self.differ + self.unresolved

    @property
    def differ(self) -> int:
        """Texts that got two answers."""
        return self.unasked + self.worse + self.better + self.neither

    def plus(self, other: PairCounts) -> PairCounts:
        """Return the sum of both."""
        return PairCounts(**{name: getattr(self, name) + getattr(other, name) for name in _PAIRS})


_PAIRS = tuple(PairCounts.model_fields)
_NO_LATENCIES = (0,) * (len(LATENCY_BUCKETS_S) + 1)


class ArmCounts(Frozen):
    """What one arm did during a trial.

    Attributes:
        requests, texts: answered.
        failed: requests refused for reasons that are the gateway's: full, too late, broken.
        escalated, degraded: texts.
        slow: requests over the rule's objective.
        usd: by the costs of the stages that ran; 0 where the family has none.
        latency_s: sum over requests; `latencies`: requests by bucket of contract.metrics, the last beyond.
    """

    requests: int = Field(default=0, ge=0)
    texts: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    escalated: int = Field(default=0, ge=0)
    degraded: int = Field(default=0, ge=0)
    slow: int = Field(default=0, ge=0)
    usd: float = Field(default=0.0, ge=0)
    latency_s: float = Field(default=0.0, ge=0)
    latencies: tuple[int, ...] = _NO_LATENCIES

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.latencies) != len(_NO_LATENCIES):
            raise ValueError(f"latencies must be {len(_NO_LATENCIES)} counts")
        return self

    def plus(self, other: ArmCounts) -> ArmCounts:
        """Return the sum of both."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        pairs = zip(self.latencies, other.latencies, strict=True)
        return ArmCounts(**sums, latencies=tuple(a + b for a, b in pairs))

    def summary(self) -> dict[str, Any]:
        """Return error_rate, escalation_rate, degraded_rate, mean_ms, p99_ms and usd_per_1k; None: unknown.

        `p99_ms` is the upper edge of the bucket that holds it.
        """
        asked = self.requests + self.failed
        return {
            "error_rate": self.failed / asked if asked else None,
            "escalation_rate": self.escalated / self.texts if self.texts else None,
            "degraded_rate": self.degraded / self.texts if self.texts else None,
            "mean_ms": 1e3 * self.latency_s / self.requests if self.requests else None,
            "p99_ms": self._quantile_ms(0.99),
            "usd_per_1k": 1e3 * self.usd / self.texts if self.texts else None,
        }

    def _quantile_ms(self, q: float) -> float | None:
        total, seen = sum(self.latencies), 0
        for edge, count in zip(LATENCY_BUCKETS_S, self.latencies, strict=False):
            seen += count
            if total and seen >= q * total:
                return edge * 1e3
        return None


_SUMMED = tuple(name for name in ArmCounts.model_fields if name != "latencies")


class TrialCounts(Frozen):
    """All that is known of one trial: counts, no texts."""

    live: ArmCounts = ArmCounts()
    candidate: ArmCounts = ArmCounts()
    pairs: PairCounts = PairCounts()

    def plus(self, other: TrialCounts) -> TrialCounts:
        """Return the sum of both."""
        return TrialCounts(
            live=self.live.plus(other.live),
            candidate=self.candidate.plus(other.candidate),
            pairs=self.pairs.plus(other.pairs),
        )


class Verdict(Frozen):
    """What counts prove under a rule; anybody can compute it again from the two.

    Attributes:
        decision, reason: what follows, and from what.
        method: name of the mathematics, as in router.live.verdict.
        drop: the estimate; `drop_low` and `drop_high` hold one by one at the rule's confidence.
        log_no_worse, log_worse: log-wealth against "the drop is no_worse_than or more" and "... or less".
        needed: log-wealth at which either is proven.
    """

    decision: Decision
    reason: Reason
    method: str
    n: int
    drop: float | None
    drop_low: float
    drop_high: float
    log_no_worse: float
    log_worse: float
    needed: float
