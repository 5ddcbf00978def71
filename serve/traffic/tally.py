"""Counts of a trial in one process: what each arm did, and how answers compared. No texts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from contract.errors import RequestError
from contract.metrics import LATENCY_BUCKETS_S, Outcome
from contract.trial import ArmCounts, PairCounts, TrialCounts, TrialKind
from serve.types.messages import CASCADE
from serve.types.recorder import PassingOn, Recorder, RequestRecord
from serve.wire.errors import outcome_of

PairOutcome = Literal[
    "same", "unasked", "worse", "better", "neither", "unresolved", "shed", "busy", "degraded"
]

_OUR_FAULT: tuple[Outcome, ...] = ("overloaded", "deadline", "server_error")


class ArmTally:
    """What one arm did so far; `objective_s` tells which requests are slow."""

    __slots__ = (
        "_degraded", "_escalated", "_failed", "_latencies", "_latency_s", "_objective_s", "_requests",
        "_slow", "_texts", "_usd",
    )  # fmt: skip

    def __init__(self, objective_s: float | None = None) -> None:
        self._objective_s = objective_s
        self._requests = self._texts = self._failed = self._escalated = self._degraded = self._slow = 0
        self._usd = self._latency_s = 0.0
        self._latencies = [0] * (len(LATENCY_BUCKETS_S) + 1)

    def answered(self, record: RequestRecord) -> None:
        """Count an answered request."""
        self._requests += 1
        self._texts += len(record.variants)
        self._latency_s += record.total_s
        self._latencies[bisect_left(LATENCY_BUCKETS_S, record.total_s)] += 1
        if self._objective_s is not None and record.total_s > self._objective_s:
            self._slow += 1
        if record.prices is not None:
            self._usd += sum(record.prices.charges(record.runs()).values())
        if record.escalations or record.abstained:
            self._escalated += sum(variant != record.first for variant in record.variants)
        for _, texts in record.degraded:
            self._degraded += texts

    def refused(self, problem: RequestError) -> bool:
        """Count a request that was not answered, where that is the gateway's doing; return whether it is."""
        ours = outcome_of(problem) in _OUR_FAULT
        self._failed += ours
        return ours

    def counts(self) -> ArmCounts:
        """Return the counts so far."""
        return ArmCounts(
            requests=self._requests,
            texts=self._texts,
            failed=self._failed,
            escalated=self._escalated,
            degraded=self._degraded,
            slow=self._slow,
            usd=self._usd,
            latency_s=self._latency_s,
            latencies=tuple(self._latencies),
        )


class TrialTally:
    """All counts of one trial in this process."""

    __slots__ = ("_pairs", "candidate", "kind", "live")

    def __init__(self, kind: TrialKind, objective_s: float | None = None) -> None:
        self.kind = kind
        self.live = ArmTally(objective_s)
        self.candidate = ArmTally(objective_s)
        self._pairs: dict[PairOutcome, int] = {}

    def compared(self, outcome: PairOutcome, texts: int = 1) -> None:
        """Count texts by what came of their comparison."""
        self._pairs[outcome] = self._pairs.get(outcome, 0) + texts

    def counts(self) -> TrialCounts:
        """Return the counts so far."""
        return TrialCounts(
            live=self.live.counts(), candidate=self.candidate.counts(), pairs=PairCounts(**self._pairs)
        )


class ArmRecorder(PassingOn):
    """Tells the tallies of an arm of every answer of the cascade, beside whoever else is told."""

    def __init__(self, tallies: Sequence[ArmTally], following: Recorder) -> None:
        super().__init__(following)
        self._tallies = tallies

    def answered(self, record: RequestRecord) -> None:
        """A request was answered."""
        if record.model == CASCADE:
            for tally in self._tallies:
                tally.answered(record)
        super().answered(record)
