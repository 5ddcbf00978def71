"""What a stage replica runs: a variant of its own, or the shelf, which loads once the cascade answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from contract.errors import NotReady, RequestError, SluiceError, StageFailed
from serve.stages.inline import InlineStage, check_hanging
from serve.stages.loading import Assignment, load_stage, read_served_family
from serve.stages.remote import Ask, Reply
from serve.telemetry.observer import Observer
from serve.types.current import REQUEST_ID, SPAN
from serve.types.recorder import Recorder

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2


class StageWorker:
    """Answers asks for a fixed set of variants, re-batched here over all gateway replicas.

    Args:
        assignment: of this run.
        variants: those that may be asked for.
        recorder: told of every batch.
        observer: watches single requests, if anybody does.
    """

    def __init__(
        self,
        assignment: Assignment,
        variants: tuple[str, ...],
        recorder: Recorder,
        observer: Observer | None = None,
    ) -> None:
        self._assignment = assignment
        self._variants = variants
        self._recorder = recorder if observer is None else observer.recorder(recorder)
        self._tracing = None if observer is None else observer.tracing
        self._family = read_served_family(assignment)
        self._stages: dict[str, InlineStage] = {}
        self._loading: dict[str, asyncio.Lock] = {name: asyncio.Lock() for name in variants}

    @property
    def stages(self) -> dict[str, InlineStage]:
        """The variants loaded so far."""
        return self._stages

    async def load(self, variant: str) -> InlineStage:
        """Return the stage of a variant, loaded in a thread when it is not there yet.

        Raises:
            NotReady: this replica does not hold the variant, or cannot load it.
        """
        stage = self._stages.get(variant)
        if stage is not None:
            return stage
        if variant not in self._loading:
            raise NotReady(f"{variant} is not on this replica")
        async with self._loading[variant]:
            stage = self._stages.get(variant)
            if stage is None:
                try:
                    stage = await asyncio.to_thread(
                        load_stage,
                        self._assignment,
                        self._family,
                        variant,
                        self._recorder,
                        self._assignment.settings.provider,
                    )
                except SluiceError as problem:
                    log.exception("cannot load %s", variant)
                    raise NotReady(
                        f"{variant} cannot be loaded: its files are not those that the gateway started with, "
                        "or the machine lacks something; see the log, and restart the gateway"
                    ) from problem
                self._stages[variant] = stage
        return stage

    async def load_when(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Load every variant once `ready`, one at a time: a family rebuilt later does not matter then."""
        while not await ready():
            await asyncio.sleep(_LOOK_EVERY_S)
        for variant in self._variants:
            with contextlib.suppress(NotReady):
                await self.load(variant)

    async def infer(self, variant: str, artifact_sha256: str, asks: list[Ask]) -> list[Reply]:
        """Answer asks side by side, each with logits or with its own error.

        Raises:
            NotReady: the variant is not here, or here in another build.
        """
        stage = await self.load(variant)
        if stage.artifact_sha256 != artifact_sha256:
            raise NotReady(f"{variant} is loaded from another build")
        now = time.monotonic()
        return await asyncio.gather(*(self._one(stage, ask, now) for ask in asks))

    async def ready(self, variant: str) -> bool:
        """Return whether the variant answers, loading it first if need be."""
        return await (await self.load(variant)).ready()

    def check_hanging(self) -> None:
        """Raise StageFailed where a model does not come back; nothing in this process can end it."""
        check_hanging(self._stages.values())

    async def close(self) -> None:
        """Finish what is inside and free the variants."""
        await asyncio.gather(*(stage.close() for stage in self._stages.values()))

    async def _one(self, stage: InlineStage, ask: Ask, now: float) -> Reply:
        deadline_at = None if ask.remaining_s is None else now + ask.remaining_s
        due_at = None if ask.due_s is None else now + ask.due_s
        REQUEST_ID.set(ask.request_id)
        span = None
        if ask.trace is not None and self._tracing is not None:
            span = self._tracing.request(f"serve {stage.variant}", ask.trace)
            SPAN.set(span)
        try:
            return await stage.logits(ask.texts, deadline_at, due_at, ask.priority)
        except RequestError as problem:
            return problem
        except Exception:
            log.exception("%s failed", stage.variant)
            return StageFailed(f"{stage.variant} failed")
        finally:
            if span is not None:
                span.end()
