"""A stage inside this process: a loaded variant behind its micro-batcher."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Protocol

import numpy as np

from contract.errors import StageBroken, StageFailed
from runtime.api import Encoded, LoadedVariant, Logits, stack
from serve.settings.stages import BatchRules
from serve.stages.batching import MicroBatcher
from serve.stages.breaker import Breaker
from serve.stages.loop_turn import LoopTurn
from serve.types.clock import Clock
from serve.types.messages import Texts
from serve.types.priority import DEFAULT_PRIORITY
from serve.types.recorder import BreakerState, Recorder


class InlineStage:
    """Answers from this process. Closing it finishes what is inside and frees the variant.

    Args:
        loaded: the variant.
        rules: how it is batched.
        recorder: told of every batch.
        breaker: of this stage, where one is wanted: a stage replica leaves it to those who call it.
        clock: seconds; deadlines are on it.
        family: name that its family is served under.
    """

    def __init__(
        self,
        loaded: LoadedVariant,
        rules: BatchRules,
        recorder: Recorder,
        *,
        breaker: Breaker | None = None,
        clock: Clock = time.monotonic,
        turn: LoopTurn | None = None,
        family: str = "",
    ) -> None:
        self.family = family
        self._loaded = loaded
        self._batcher: MicroBatcher[str, Logits] = MicroBatcher(
            loaded.name, self._run, rules, recorder, check=self._check, clock=clock, turn=turn
        )
        self._breaker = breaker
        self._clock = clock
        self._closed = False

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self._loaded.name

    @property
    def artifact_sha256(self) -> str:
        """Hash of the artifact that answers."""
        return self._loaded.artifact_sha256

    @property
    def queued(self) -> int:
        """Texts waiting or running."""
        return self._batcher.outstanding

    @property
    def hangs(self) -> bool:
        """Whether a call of the model takes longer than any call may."""
        return self._batcher.hangs

    def wait_share(self, within_s: float) -> float:
        """Return how much of its time a newcomer would wait; see serve.types.stage.wait_share_of."""
        return self._batcher.wait_share(within_s)

    def look(self) -> BreakerState:
        """Return the state of its breaker; one without is closed."""
        return "closed" if self._breaker is None else self._breaker.look(self._clock())

    async def logits(
        self,
        texts: Sequence[str],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Logits:
        """Return float32 logits [N, C]; see serve.stages.Stage."""
        breaker = self._breaker
        if breaker is None:
            parts = await self._batcher.submit(texts, deadline_at, due_at, priority)
        else:
            breaker.check(self._clock(), priority)
            try:
                parts = await self._batcher.submit(texts, deadline_at, due_at, priority)
            except StageBroken:
                breaker.failed(self._clock(), "it fails on its own example")
                raise
            breaker.succeeded()
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits | None:
        """Return what `logits` would where the variant is idle and runs on the loop, else None."""
        breaker = self._breaker
        if breaker is None:
            return self._batcher.run_now(texts, deadline_at)
        if breaker.state != "closed":
            return None
        try:
            logits = self._batcher.run_now(texts, deadline_at)
        except StageBroken:
            breaker.failed(self._clock(), "it fails on its own example")
            raise
        if logits is not None:
            breaker.succeeded()
        return logits

    async def ready(self) -> bool:
        """Return True until closed: a variant is loaded before its stage exists."""
        return not self._closed

    async def close(self) -> None:
        """Finish what is inside and free the variant."""
        self._closed = True
        await self._batcher.close()
        self._loaded.runtime.close()

    def _check(self) -> None:
        """Raise where the variant fails on the example of its own encoder."""
        self._run([[self._loaded.encoder.example]])

    def _run(self, groups: Sequence[Sequence[str]]) -> list[Logits]:
        single = len(groups) == 1
        if self._loaded.direct is not None:
            logits = self._loaded.direct(groups[0] if single else list(chain.from_iterable(groups)))
        else:
            logits = self._loaded.runtime.logits(self._encode(groups))
        count = len(groups[0]) if single else sum(len(group) for group in groups)
        if logits.shape != (count, len(self._loaded.labels)) or not are_finite(logits):
            raise StageFailed(f"{self.variant} gave no usable answer")
        if single:
            return [logits]
        parts: list[Logits] = []
        start = 0
        for group in groups:
            parts.append(logits[start : start + len(group)])
            start += len(group)
        return parts

    def _encode(self, groups: Sequence[Sequence[str]]) -> Encoded:
        """Encode what no earlier stage has, and leave it for the next."""
        encoder = self._loaded.encoder
        if len(groups) == 1 and not isinstance(groups[0], Texts):
            return encoder.encode(groups[0])
        if not any(isinstance(group, Texts) for group in groups):
            return encoder.encode(list(chain.from_iterable(groups)))
        parts: list[Encoded] = []
        for group in groups:
            known = group.encodings.get(encoder.sha256) if isinstance(group, Texts) else None
            if known is None:
                known = encoder.encode(group)
                if isinstance(group, Texts):
                    group.encodings[encoder.sha256] = known
            parts.append(known)
        return stack(parts)


class _MayHang(Protocol):
    @property
    def variant(self) -> str: ...

    @property
    def hangs(self) -> bool: ...


def check_hanging(stages: Iterable[_MayHang]) -> None:
    """Raise StageFailed that names the stages of which a call of the model does not come back."""
    hanging = [stage.variant for stage in stages if stage.hangs]
    if hanging:
        raise StageFailed(f"{', '.join(hanging)}: a call of the model does not come back")


def are_finite(logits: Logits) -> bool:
    """Return whether no value of logits [N, C] is infinite or no number.

    The squares' sum is finite only if all are. Where it is not, it may have grown too large: then all are
    looked at.
    """
    flat = logits.reshape(-1)
    return math.isfinite(flat.dot(flat)) or bool(np.isfinite(logits).all())
