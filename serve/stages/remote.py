"""A stage behind a handle: requests join the outgoing batch, and one call carries many of them.

While all calls are in flight, what arrives waits and goes together; an idle stage is called at once. One
request in a call cannot fail another: every ask gets its own logits or its own error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contract.errors import DeadlineExceeded, NotReady, Overloaded, RequestError, StageFailed
from runtime.api import Logits
from serve.settings.stages import StageSettings
from serve.types.clock import Clock

log = logging.getLogger(__name__)

CALL_BYTES = 3 * 1024 * 1024
"""Text bytes of one call: the handle's transport refuses messages of 4 MB."""
_PING_S = 2.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request asks, as it crosses the handle; `remaining_s` until its deadline, if any."""

    texts: list[str]
    remaining_s: float | None


Reply = Logits | RequestError
Call = Callable[[list[Ask]], Awaitable[list[Reply]]]
Ping = Callable[[], Awaitable[bool]]


class StageUnreachable(NotReady):
    """The process behind the handle is gone or not there yet; another replica may answer."""


@dataclass(slots=True, eq=False)
class _Waiting:
    texts: list[str]
    deadline_at: float | None
    size: int
    future: asyncio.Future[Logits]
    tries_left: int = 1


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
        self._waiting: deque[_Waiting] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._outstanding = 0
        self._seconds_per_item = 0.0

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self._variant

    @property
    def queued(self) -> int:
        """Texts waiting or under way."""
        return self._outstanding

    async def logits(self, texts: Sequence[str], deadline_at: float | None) -> Logits:
        """Return float32 logits [N, C]; see serve.stages.Stage."""
        self._admit(len(texts), deadline_at)
        loop = asyncio.get_running_loop()
        parts = [
            _Waiting(part, deadline_at, size, loop.create_future())
            for part, size in split(texts, self._rules.max_items, CALL_BYTES)
        ]
        self._waiting.extend(parts)
        self._outstanding += len(texts)
        self._pump()
        patience = None if deadline_at is None else deadline_at - self._clock()
        try:
            async with asyncio.timeout(patience):
                answers = [await part.future for part in parts]
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline passed while waiting for {self._variant}") from None
        finally:
            self._outstanding -= len(texts)
            for part in parts:
                part.future.cancel()
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    async def ready(self) -> bool:
        """Return whether a replica answers a ping within two seconds."""
        try:
            async with asyncio.timeout(_PING_S):
                return await self._ping()
        except (TimeoutError, RequestError):
            return False

    def _admit(self, count: int, deadline_at: float | None) -> None:
        rules = self._rules
        wait_s = self._outstanding * self._seconds_per_item
        if self._outstanding and self._outstanding + count > rules.max_queue_items:
            raise Overloaded(f"the queue of {self._variant} is full", retry_after_s=wait_s)
        if wait_s > rules.max_queue_s:
            raise Overloaded(f"the queue of {self._variant} is too long", retry_after_s=wait_s)
        if deadline_at is not None and self._clock() + wait_s >= deadline_at:
            raise DeadlineExceeded(f"the deadline would pass in the queue of {self._variant}")

    def _pump(self) -> None:
        while self._waiting and len(self._calls) < self._settings.calls_in_flight:
            batch = self._take()
            if batch:
                task = asyncio.get_running_loop().create_task(self._send(batch))
                self._calls.add(task)
                task.add_done_callback(self._sent)

    def _take(self) -> list[_Waiting]:
        """Take what fits into one call from the front, leaving out what nobody waits for any more."""
        batch: list[_Waiting] = []
        items = size = 0
        while self._waiting:
            first = self._waiting[0]
            if first.future.done():
                self._waiting.popleft()
                continue
            full = items + len(first.texts) > self._rules.max_items or size + first.size > CALL_BYTES
            if batch and full:
                break
            batch.append(self._waiting.popleft())
            items += len(first.texts)
            size += first.size
        return batch

    async def _send(self, batch: list[_Waiting]) -> None:
        started = self._clock()
        asks = [
            Ask(part.texts, None if part.deadline_at is None else part.deadline_at - started)
            for part in batch
        ]
        try:
            replies = await self._call(asks)
        except StageUnreachable as problem:
            self._again(batch, problem)
            return
        except Exception:
            log.exception("a call of %s failed", self._variant)
            replies = [StageFailed(f"{self._variant} failed") for _ in batch]
        items = sum(len(part.texts) for part in batch)
        pace = (self._clock() - started) / items / self._settings.calls_in_flight
        known = self._seconds_per_item
        self._seconds_per_item = pace if known == 0.0 else known + 0.1 * (pace - known)
        for part, reply in zip(batch, replies, strict=True):
            if part.future.done():
                continue
            if isinstance(reply, RequestError):
                part.future.set_exception(reply)
            else:
                part.future.set_result(reply)

    def _again(self, batch: list[_Waiting], problem: StageUnreachable) -> None:
        """Put what may be tried again back to the front; inference changes nothing, so twice is safe."""
        for part in reversed(batch):
            if part.future.done():
                continue
            if part.tries_left:
                part.tries_left -= 1
                self._waiting.appendleft(part)
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
