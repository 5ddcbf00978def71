"""A stage behind a handle: requests join the outgoing batch, and one call carries many of them.

While all calls are in flight, what arrives waits and goes together; an idle stage is called at once. What
waits does so here rather than at the stage, as far as it can: here it is ordered, and refused in time. One
request in a call cannot fail another: every ask gets its own logits or its own error.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Iterator, Sequence

import numpy as np

from contract.errors import DeadlineExceeded, NotReady, Overloaded, RequestError, StageBroken, StageFailed
from runtime.api import Logits
from serve.settings.stages import StageSettings
from serve.stages.admission import Admission
from serve.stages.breaker import INCIDENT, Breaker, StageUnavailable
from serve.stages.call import Ask, Call, CallOff, Ping, StageUnreachable
from serve.stages.forecast import CallForecast
from serve.stages.hang_watch import HangWatch
from serve.stages.room import Ticket
from serve.stages.twice import Budget, hedged
from serve.telemetry.tracing import carried_by
from serve.types.clock import Clock
from serve.types.current import REQUEST_ID, SPAN
from serve.types.priority import DEFAULT_PRIORITY, OFF_PATH_PRIORITY
from serve.types.recorder import BreakerState, NoRecorder, Recorder

log = logging.getLogger(__name__)

CALL_BYTES = 3 * 1024 * 1024
"""Text bytes of one call: the handle's transport refuses messages of 4 MB."""
_NEUTRAL = (DeadlineExceeded, Overloaded, NotReady, StageBroken)
"""Replies that do not say that a stage is well."""
_PING_S = 2.0
_CALL_OFF_AFTER_S = 0.01
_NO_RECORDER = NoRecorder()
_numbers = itertools.count(secrets.randbits(60))
"""Asks are numbered across all gateways that ask a stage: they begin far apart."""


class _Part(Ticket):
    """Texts of one request that cross the handle together."""

    __slots__ = ("call", "number", "request_id", "soft_at", "span", "texts", "tries_left")

    def __init__(
        self,
        texts: list[str],
        weight: int,
        deadline_at: float | None,
        now: float,
        due_at: float | None,
        priority: int,
    ) -> None:
        future: asyncio.Future[Logits] = asyncio.get_running_loop().create_future()
        super().__init__(len(texts), deadline_at, now, future, due_at, priority)
        self.texts = texts
        self.weight = weight
        self.soft_at = due_at
        self.number = next(_numbers)
        self.tries_left = 0 if priority == OFF_PATH_PRIORITY else 1
        self.request_id = REQUEST_ID.get()
        self.span = SPAN.get()
        self.call: _Call | None = None

    def ask(self, now: float) -> Ask:
        """Return what crosses the handle."""
        return Ask(
            self.texts,
            None if self.deadline_at is None else self.deadline_at - now,
            None if self.soft_at is None else self.soft_at - now,
            self.priority,
            self.request_id,
            None if self.span is None else carried_by(self.span),
            self.number,
        )


class _Call:
    """One call under way; `waited_for` counts the parts whose client is still there."""

    __slots__ = ("alone", "items", "parts", "sent_at", "task", "timed_out", "waited_for")

    def __init__(self, parts: list[_Part], now: float, *, alone: bool) -> None:
        self.parts = parts
        self.alone = alone
        self.items = sum(part.size for part in parts)
        self.sent_at = now
        self.waited_for = len(parts)
        self.timed_out = False
        self.task: asyncio.Task[None] | None = None


class RemoteStage:
    """Answers through `call`, which carries asks to a replica of the variant's deployment.

    Args:
        variant: its name.
        call: sends asks and returns one reply per ask; raises StageUnreachable when that replica is gone.
        ping: whether a replica would answer now.
        settings: bounds; `batch.max_items` texts in one call, `calls_in_flight` calls at a time.
        call_off: tells every replica the numbers of asks that nobody waits for any more.
        recorder: told of retries, hedges and the breaker.
        clock: seconds; deadlines are on it.
        forecast: how long calls take; by default as behind a handle, which others ask too.
    """

    def __init__(
        self,
        variant: str,
        call: Call,
        ping: Ping,
        settings: StageSettings,
        *,
        call_off: CallOff | None = None,
        recorder: Recorder = _NO_RECORDER,
        clock: Clock = time.monotonic,
        forecast: CallForecast | None = None,
    ) -> None:
        self._variant = variant
        self._ping = ping
        self._settings = settings
        self._rules = settings.batch
        self._call_off = call_off
        self._recorder = recorder
        self._clock = clock
        self._forecast = forecast or CallForecast(settings.batch.max_items)
        self._admission: Admission[_Part] = Admission(variant, settings.batch, self._forecast)
        self._budget = Budget(settings.retries)
        self._call = hedged(call, variant, settings, self._budget, recorder, clock)
        self._breaker = Breaker(variant, settings.breaker, self._breaker_is)
        self._watch = HangWatch(self._breaker, clock)
        self._calls: set[_Call] = set()
        self._called_off: list[int] = []
        self._errands: set[asyncio.Task[None]] = set()

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self._variant

    @property
    def queued(self) -> int:
        """Texts waiting or under way."""
        return self._admission.outstanding

    def wait_share(self, within_s: float) -> float:
        """Return how much of its time a newcomer would wait; see serve.types.stage.wait_share_of."""
        return self._admission.wait_share(self._clock(), within_s)

    def look(self) -> BreakerState:
        """Return the state of its breaker."""
        return self._breaker.look(self._clock())

    async def logits(
        self,
        texts: Sequence[str],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Logits:
        """Return float32 logits [N, C]; see serve.stages.Stage."""
        now = self._clock()
        self._breaker.check(now, priority)
        most = self._rules.max_items
        if len(texts) > most:  # no part shall hold up what comes meanwhile for longer than a batch may
            most = min(most, self._forecast.limit)
        pieces = list(split(texts, most, CALL_BYTES))
        first = _Part(*pieces[0], deadline_at, now, due_at, priority)
        self._refuse(self._admission.admit(first, len(texts), now))
        if priority != OFF_PATH_PRIORITY:
            self._budget.earn(len(texts))
        self._pump()
        parts = [first]
        patience = None if deadline_at is None else deadline_at - now
        try:
            async with asyncio.timeout(patience):
                if len(pieces) == 1:
                    only: Logits = await first.future
                    return only
                return await self._further(pieces, parts)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline passed while waiting for {self._variant}") from None
        finally:
            self._admission.leave(len(texts), priority)
            for part in parts:
                part.future.cancel()
                if part.future.cancelled() and part.call is not None:
                    self._given_up(part, part.call)

    async def _further(self, pieces: list[tuple[list[str], int]], parts: list[_Part]) -> Logits:
        """Keep one part more than there are calls inside, so that small requests get their turn between."""
        first = parts[0]
        patience = first.order - first.enqueued_at
        answers: list[Logits] = []
        for texts, weight in pieces[1:]:
            if len(parts) - len(answers) > self._settings.calls_in_flight:
                answers.append(await parts[len(answers)].future)
            now = self._clock()
            part = _Part(texts, weight, first.deadline_at, now, first.soft_at, first.priority)
            part.stay(now + patience)
            parts.append(part)
            self._admission.room.push(part)
            self._pump()
        for part in parts[len(answers) :]:
            answers.append(await part.future)
        whole: Logits = np.concatenate(answers)
        return whole

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
                self._start(batch)

    def _start(self, batch: list[_Part]) -> None:
        call = _Call(batch, self._clock(), alone=not self._calls)
        for part in batch:
            part.call = call
        self._forecast.under_way += call.items
        self._calls.add(call)
        call.task = asyncio.get_running_loop().create_task(self._send(call))
        call.task.add_done_callback(lambda task: self._ended(call, task))

    async def _send(self, call: _Call) -> None:
        try:
            replies = await self._call([part.ask(call.sent_at) for part in call.parts])
        except StageUnreachable as problem:
            self._breaker.failed(self._clock(), "no replica is reached")
            self._again(call, problem)
            return
        except asyncio.CancelledError:
            if call.timed_out:
                return
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._breaker.failed(self._clock(), "its calls are cancelled")
            self._again(call, StageUnreachable(f"{self._variant} dropped a call"))
            return
        except Exception:
            log.exception("a call of %s failed", self._variant)
            self._breaker.failed(self._clock(), "calls fail")
            replies = [StageFailed(f"{self._variant} failed") for _ in call.parts]
        else:
            if all(isinstance(reply, StageBroken | NotReady) for reply in replies):
                self._breaker.failed(self._clock(), str(replies[0]))
            elif not all(isinstance(reply, _NEUTRAL) for reply in replies):
                self._breaker.succeeded()
                self._watch.heard()
        for part, reply in zip(call.parts, replies, strict=True):
            if part.future.done():
                continue
            if isinstance(reply, RequestError):
                part.future.set_exception(reply)
            else:
                part.future.set_result(reply)
        refused = sum(
            part.size
            for part, reply in zip(call.parts, replies, strict=True)
            if isinstance(reply, RequestError)
        )
        if 2 * refused >= call.items:  # how fast a stage refuses says nothing of its pace
            return
        now = self._clock()
        self._forecast.came_back(call.items, call.sent_at, now, alone=call.alone)
        if call.parts[0].expected_at:
            self._forecast.answered(now - call.parts[0].expected_at)

    def _again(self, call: _Call, problem: StageUnreachable) -> None:
        """Put what may be tried again back to the front; inference changes nothing, so twice is safe."""
        may = self._breaker.state != "open"
        in_time = self._clock() + self._forecast.pace.of(call.items)
        for part in reversed(call.parts):
            part.call = None
            if part.future.done():
                continue
            late = part.deadline_at is not None and in_time >= part.deadline_at
            if may and part.tries_left and not late and self._budget.spend(part.size):
                part.tries_left -= 1
                self._admission.room.push_front(part)
                self._recorder.incident("retry_sent", self._variant, part.size)
            else:
                part.future.set_exception(problem)
                self._recorder.incident("retry_refused", self._variant, part.size)

    def _ended(self, call: _Call, task: asyncio.Task[None]) -> None:
        self._not_out(call)
        for part in call.parts:
            if part.call is call:
                part.call = None
        problem = None if task.cancelled() else task.exception()
        if problem is not None or task.cancelled():
            if problem is not None:
                log.error("a call of %s ended in a way that none should", self._variant, exc_info=problem)
            for part in call.parts:
                if not part.future.done():
                    part.future.set_exception(StageFailed(f"{self._variant} failed"))
        if call.timed_out or not task.cancelled():  # else the loop ends
            self._pump()

    def _not_out(self, call: _Call) -> None:
        """Let others take the place of a call."""
        if call in self._calls:
            self._calls.discard(call)
            self._forecast.under_way -= call.items

    def _given_up(self, part: _Part, call: _Call) -> None:
        """Call off an ask that is under way; of calls that are late for all, one may run on as a witness."""
        now = self._clock()
        call.waited_for -= 1
        task = call.task
        if (
            part.deadline_at is not None
            and now >= part.deadline_at
            and not call.waited_for
            and task is not None
        ):
            call.timed_out = True
            if not self._watch.runs_on(task, call.sent_at, self._forecast.pace.of(call.items)):
                self._forecast.outlasted(call.items, now - call.sent_at)
                task.cancel()
            self._not_out(call)
            self._pump()
        elif self._call_off is not None:
            if not self._called_off:
                asyncio.get_running_loop().call_later(_CALL_OFF_AFTER_S, self._send_off)
            self._called_off.append(part.number)

    def _send_off(self) -> None:
        numbers, self._called_off = self._called_off, []
        errand = asyncio.get_running_loop().create_task(self._tell(numbers))
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _tell(self, numbers: list[int]) -> None:
        assert self._call_off is not None
        try:
            await self._call_off(numbers)
        except Exception:
            log.exception("%s could not be told what nobody waits for", self._variant)

    def _breaker_is(self, state: BreakerState) -> None:
        """Once it opens, nothing that waits is sent any more."""
        self._recorder.incident(INCIDENT[state], self._variant)
        if state == "open":
            problem = StageUnavailable(f"{self._variant} fails and is not asked now")
            for part in self._admission.room.clear():
                if not part.future.done():
                    part.future.set_exception(problem)


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
