"""A stage behind a handle: requests join the outgoing batch, and one call carries many of them.

While all calls are in flight, what arrives waits and goes together; an idle stage is called at once. What
waits does so here rather than at the stage, as far as it can: here it is ordered, and refused in time. One
request in a call cannot fail another: every ask gets its own logits or its own error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contract.errors import DeadlineExceeded, NotReady, RequestError, StageFailed
from runtime.api import Logits
from serve.settings.stages import StageSettings
from serve.stages.admission import Admission
from serve.stages.forecast import CallForecast
from serve.stages.room import Ticket
from serve.telemetry.tracing import carried_by
from serve.types.clock import Clock
from serve.types.current import REQUEST_ID, SPAN
from serve.types.priority import DEFAULT_PRIORITY

log = logging.getLogger(__name__)

CALL_BYTES = 3 * 1024 * 1024
"""Text bytes of one call: the handle's transport refuses messages of 4 MB."""
_PING_S = 2.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request asks, as it crosses the handle.

    Attributes:
        texts: [N].
        remaining_s: seconds until its deadline, if any.
        due_s: seconds until it must be answered to be worth a place in a queue, if any.
        priority: level, 1 the highest.
        request_id: of the request, for what the stage's replica logs.
        trace: W3C headers of the span that asks; None where it is not traced.
    """

    texts: list[str]
    remaining_s: float | None
    due_s: float | None = None
    priority: int = DEFAULT_PRIORITY
    request_id: bytes = b""
    trace: dict[str, str] | None = None


Reply = Logits | RequestError
Call = Callable[[list[Ask]], Awaitable[list[Reply]]]
Ping = Callable[[], Awaitable[bool]]


class StageUnreachable(NotReady):
    """The process behind the handle is gone or not there yet; another replica may answer."""


class _Part(Ticket):
    """Texts of one request that cross the handle together."""

    __slots__ = ("request_id", "soft_at", "span", "texts", "tries_left")

    def __init__(
        self,
        texts: list[str],
        deadline_at: float | None,
        now: float,
        future: asyncio.Future[Logits],
        due_at: float | None,
        priority: int,
    ) -> None:
        super().__init__(len(texts), deadline_at, now, future, due_at, priority)
        self.texts = texts
        self.soft_at = due_at
        self.tries_left = 1
        self.request_id = REQUEST_ID.get()
        self.span = SPAN.get()

    def ask(self, now: float) -> Ask:
        """Return what crosses the handle."""
        return Ask(
            self.texts,
            None if self.deadline_at is None else self.deadline_at - now,
            None if self.soft_at is None else self.soft_at - now,
            self.priority,
            self.request_id,
            None if self.span is None else carried_by(self.span),
        )


class RemoteStage:
    """Answers through `call`, which carries asks to a replica of the variant's deployment.

    Args:
        variant: its name.
        call: sends asks and returns one reply per ask; raises StageUnreachable when that replica is gone.
        ping: whether a replica would answer now.
        settings: bounds; `batch.max_items` texts in one call, `calls_in_flight` calls at a time.
        clock: seconds; deadlines are on it.
    """

    def __init__(
        self, variant: str, call: Call, ping: Ping, settings: StageSettings, *, clock: Clock = time.monotonic
    ) -> None:
        self._variant = variant
        self._call = call
        self._ping = ping
        self._settings = settings
        self._rules = settings.batch
        self._clock = clock
        self._forecast = CallForecast(settings.batch.max_items)
        self._admission: Admission[_Part] = Admission(variant, settings.batch, self._forecast)
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self._variant

    @property
    def queued(self) -> int:
        """Texts waiting or under way."""
        return self._admission.outstanding

    async def logits(
        self,
        texts: Sequence[str],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Logits:
        """Return float32 logits [N, C]; see serve.stages.Stage."""
        now = self._clock()
        parts = self._join(texts, deadline_at, now, due_at, priority)
        self._pump()
        patience = None if deadline_at is None else deadline_at - now
        try:
            async with asyncio.timeout(patience):
                answers = [await part.future for part in parts]
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline passed while waiting for {self._variant}") from None
        finally:
            self._admission.outstanding -= len(texts)
            for part in parts:
                part.future.cancel()
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits | None:  # noqa: ARG002 - a stage's
        """Return None: the answer comes from another process."""
        return None

    async def ready(self) -> bool:
        """Return whether a replica answers a ping within two seconds."""
        try:
            async with asyncio.timeout(_PING_S):
                return await self._ping()
        except (TimeoutError, RequestError):
            return False

    def _join(
        self, texts: Sequence[str], deadline_at: float | None, now: float, due_at: float | None, priority: int
    ) -> list[_Part]:
        """Give the parts of a request their places in the queue. Raises as Admission.admit."""
        loop = asyncio.get_running_loop()
        parts: list[_Part] = []
        for some, size in split(texts, self._rules.max_items, CALL_BYTES):
            part = _Part(some, deadline_at, now, loop.create_future(), due_at, priority)
            part.weight = size
            parts.append(part)
        self._refuse(self._admission.admit(parts[0], len(texts), now))
        for part in parts[1:]:
            part.stay(part.order)
            self._admission.room.push(part)
        return parts

    def _refuse(self, parts: list[_Part]) -> None:
        for part in parts:
            if not part.future.done():
                part.future.set_exception(self._admission.too_late(part))

    def _pump(self) -> None:
        admission, forecast = self._admission, self._forecast
        while admission.room.items and len(self._calls) < self._settings.calls_in_flight:
            free = forecast.window - forecast.under_way
            if free < 1:
                return
            batch, gone = admission.take(self._clock(), int(min(forecast.limit, free)), CALL_BYTES)
            self._refuse(gone)
            if batch:
                forecast.under_way += sum(part.size for part in batch)
                task = asyncio.get_running_loop().create_task(self._send(batch))
                self._calls.add(task)
                task.add_done_callback(self._sent)

    async def _send(self, batch: list[_Part]) -> None:
        started = self._clock()
        items = sum(part.size for part in batch)
        try:
            replies = await self._call([part.ask(started) for part in batch])
        except StageUnreachable as problem:
            self._again(batch, problem)
            return
        except Exception:
            log.exception("a call of %s failed", self._variant)
            replies = [StageFailed(f"{self._variant} failed") for _ in batch]
        finally:
            self._forecast.under_way -= items
        now = self._clock()
        self._forecast.came_back(items, started, now)
        if batch[0].expected_at:
            self._forecast.answered(now - batch[0].expected_at)
        for part, reply in zip(batch, replies, strict=True):
            if part.future.done():
                continue
            if isinstance(reply, RequestError):
                part.future.set_exception(reply)
            else:
                part.future.set_result(reply)

    def _again(self, batch: list[_Part], problem: StageUnreachable) -> None:
        """Put what may be tried again back to the front; inference changes nothing, so twice is safe."""
        for part in reversed(batch):
            if part.future.done():
                continue
            if part.tries_left:
                part.tries_left -= 1
                self._admission.room.push_front(part)
            else:
                part.future.set_exception(problem)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            self._pump()


def split(texts: Sequence[str], max_items: int, max_bytes: int) -> Iterator[tuple[list[str], int]]:
    """Cut texts into parts of at most `max_items` texts and `max_bytes` UTF-8 bytes, each with its size.

    A text larger than `max_bytes` is a part of its own.
    """
    part: list[str] = []
    size = 0
    for text in texts:
        own = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        if part and (len(part) == max_items or size + own > max_bytes):
            yield part, size
            part, size = [], 0
        part.append(text)
        size += own
    yield part, size
