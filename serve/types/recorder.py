"""What the hot path reports of its work: one call per request, one per batch, whoever keeps the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from contract.metrics import Outcome
from serve.types.prices import Prices

BreakerState = Literal["closed", "open", "half_open"]

Incident = Literal[
    "retry_sent", "retry_refused", "hedge_sent", "hedge_won", "client_left",
    "breaker_closed", "breaker_open", "breaker_half_open",
    "call_unreachable", "call_late", "call_busy", "call_broken", "call_rejected", "call_unreadable",
    "call_declined",
]  # fmt: skip
"""What happens seldom: a stage asked twice, a breaker's new state, a client that left before its answer, a
request to a server elsewhere that failed."""

DegradedReason = Literal["deadline", "budget", "overloaded", "failed"]


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One answered request of N texts.

    Attributes:
        model: name that was asked for (a served one).
        variants: [N] variant that answered each text.
        confidences: [N] confidence of each answer.
        total_s: from the arrival of the head of the request until its answer was ready.
        escalation_s: time spent waiting for stages after the first; None where no text escalated.
        escalations: (from variant, to variant, texts), empty for most requests.
        degraded: (reason, texts), empty for most requests.
        caller: name of the key that asked; empty without keys.
        first: variant that every text went through first.
        prices: of the family that answered; None where nobody keeps count.
        abstained: texts that nobody answers; their variant is `abstain`.
    """

    model: str
    variants: Sequence[str]
    confidences: Sequence[float]
    total_s: float
    escalation_s: float | None = None
    escalations: Sequence[tuple[str, str, int]] = ()
    degraded: Sequence[tuple[DegradedReason, int]] = ()
    caller: str = ""
    first: str = ""
    prices: Prices | None = None
    abstained: int = 0

    def runs(self) -> Iterator[tuple[str, int]]:
        """Yield (variant, texts) of every stage that gave an answer, whether it stood or was overruled."""
        yield self.first, len(self.variants)
        for _, variant, texts in self.escalations:
            yield variant, texts


@dataclass(slots=True, eq=False)
class BatchRecord:
    """One call of a variant.

    Attributes:
        variant: its name.
        items: texts in the call.
        queue_s: waiting time of each request in it.
        inference_s: wall time of the call, encoding included.
        cpu_s: CPU time of the thread that ran it.
        started_at: second of the batcher's clock at which it began.
        spans: for each request in it, the span that it is traced in or None; empty where none is traced.
        charged_usd: what a server elsewhere has charged since its last call that was told.
    """

    variant: str
    items: int
    queue_s: Sequence[float]
    inference_s: float
    cpu_s: float
    started_at: float = 0.0
    spans: Sequence[Any] = ()
    charged_usd: float = 0.0


class Recorder(Protocol):
    """Keeps the figures. Called on the event loop; must not block or raise."""

    def answered(self, record: RequestRecord) -> None:
        """A request was answered."""
        ...

    def spent(self, record: RequestRecord) -> None:
        """A request costs what the record says, and is told of as refused, since it has no answer."""
        ...

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """A request was not answered. `model` is a served name, or "unknown"."""
        ...

    def limited(self, key: str, limit: str, texts: int) -> None:
        """A key was beyond one of its limits; told beside `refused`."""
        ...

    def batch(self, record: BatchRecord) -> None:
        """A variant ran."""
        ...

    def incident(self, kind: Incident, stage: str, texts: int = 1) -> None:
        """Something happened at a stage (empty for what belongs to none)."""
        ...


class PassingOn:
    """Tells another recorder everything; what is built on it does more at some of the calls."""

    def __init__(self, following: Recorder) -> None:
        self._following = following

    def answered(self, record: RequestRecord) -> None:
        """Pass it on."""
        self._following.answered(record)

    def spent(self, record: RequestRecord) -> None:
        """Pass it on."""
        self._following.spent(record)

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """Pass it on."""
        self._following.refused(model, outcome, texts)

    def limited(self, key: str, limit: str, texts: int) -> None:
        """Pass it on."""
        self._following.limited(key, limit, texts)

    def batch(self, record: BatchRecord) -> None:
        """Pass it on."""
        self._following.batch(record)

    def incident(self, kind: Incident, stage: str, texts: int = 1) -> None:
        """Pass it on."""
        self._following.incident(kind, stage, texts)


class NoRecorder:
    """Keeps nothing."""

    def answered(self, record: RequestRecord) -> None:
        """Ignore it."""

    def spent(self, record: RequestRecord) -> None:
        """Ignore it."""

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """Ignore it."""

    def limited(self, key: str, limit: str, texts: int) -> None:
        """Ignore it."""

    def batch(self, record: BatchRecord) -> None:
        """Ignore it."""

    def incident(self, kind: Incident, stage: str, texts: int = 1) -> None:
        """Ignore it."""
