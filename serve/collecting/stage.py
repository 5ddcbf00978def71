"""A remote stage whose answers are kept: what escalates to the upstream teaches too."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from contract.collected import Question
from contract.probabilities import softmax
from runtime.api import Logits
from serve.collecting.collector import Answered, Collector
from serve.types.clock import Clock
from serve.types.priority import DEFAULT_PRIORITY
from serve.types.stage import Stage, StageAround


class CollectedStage(StageAround):
    """Passes texts to a stage and its answers on, and tells the collector of both.

    Args:
        stage: of the model elsewhere.
        question: that it answers, its labels in any order.
        labels: of the logits' columns.
        collector: keeps.
        usd: price of one answer; None where it is unknown.
        upstream: address of the model's server.
        clock: seconds.
    """

    def __init__(
        self,
        stage: Stage,
        question: Question,
        labels: Sequence[str],
        collector: Collector,
        usd: float | None,
        *,
        upstream: str = "",
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(stage)
        self._question = question
        self._labels = tuple(labels)
        self._order = [self._labels.index(label) for label in question.labels]
        self._collector = collector
        self._usd = usd
        self._model = question.model or stage.variant
        self._upstream = upstream
        self._clock = clock

    async def logits(
        self,
        texts: Sequence[str],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Logits:
        """Return the stage's logits; raises as it does."""
        began = self._clock()
        found = await self._stage.logits(texts, deadline_at, due_at, priority)
        self._keep(list(texts), found, 1000 * (self._clock() - began))
        return found

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits | None:
        """Return the stage's logits where it has them without waiting."""
        found = self._stage.logits_now(texts, deadline_at)
        if found is not None:
            self._keep(list(texts), found, 0.0)
        return found

    def _keep(self, texts: list[str], logits: Logits, latency_ms: float) -> None:
        def read() -> Iterable[Answered]:
            shares = softmax(logits)[:, self._order]
            for text, row in zip(texts, shares, strict=True):
                said = self._question.labels[int(row.argmax())]
                shown = tuple(map(float, row))
                yield Answered(self._question, text, said, shown, self._model, self._usd, self._upstream)

        self._collector.offer(read, latency_ms, "stage")
