"""Work that is done twice on purpose, within a budget: retries, and hedges against a late replica."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from contract.errors import RequestError
from serve.settings.resilience import HedgeAfter, RetryRules
from serve.settings.scaling import Scaling
from serve.settings.stages import StageSettings
from serve.stages.call import Ask, Call, Reply
from serve.types.clock import Clock
from serve.types.priority import OFF_PATH_PRIORITY
from serve.types.recorder import Recorder


class Budget:
    """A bucket of tokens: every text asked for earns a share of one, every text sent twice takes one."""

    __slots__ = ("_burst", "_share", "_tokens")

    def __init__(self, rules: RetryRules) -> None:
        self._share = rules.share
        self._burst = rules.burst if rules.share else 0.0
        self._tokens = self._burst

    def earn(self, texts: int) -> None:
        """Texts were asked for."""
        self._tokens = min(self._burst, self._tokens + self._share * texts)

    def spend(self, texts: int) -> bool:
        """Take as many tokens, if they are there."""
        if self._tokens < texts:
            return False
        self._tokens -= texts
        return True


class HedgeDelay:
    """How long a call may be out before another replica is asked as well.

    Args:
        after: milliseconds, or `p95` of the last calls; None: never.
    """

    __slots__ = ("_fixed_s", "_last", "_off", "_sorted")

    CALLS = 100
    ENOUGH = 20

    def __init__(self, after: HedgeAfter | None) -> None:
        self._off = after is None
        self._fixed_s = None if after is None or after == "p95" else float(after) / 1e3
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def learn(self, seconds: float) -> None:
        """A call took so long."""
        if self._off or self._fixed_s is not None:
            return
        self._last.append(seconds)
        insort(self._sorted, seconds)
        if len(self._last) > self.CALLS:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]

    @property
    def seconds(self) -> float | None:
        """The delay; None: no hedge."""
        if self._fixed_s is not None or self._off:
            return self._fixed_s
        if len(self._sorted) < self.ENOUGH:
            return None
        return self._sorted[int(0.95 * len(self._sorted))]


def hedged(
    call: Call,
    variant: str,
    settings: StageSettings,
    budget: Budget,
    recorder: Recorder,
    clock: Clock,
) -> Call:
    """Return a call that asks a second replica when the first is late; the one that loses is cancelled.

    Where hedging is off, or the stage never has two replicas, it is `call` itself.
    """
    replicas = settings.replicas
    most = replicas.max if isinstance(replicas, Scaling) else replicas
    if settings.hedge_after is None or most < 2:
        return call
    delay = HedgeDelay(settings.hedge_after)

    async def ask(asks: list[Ask]) -> list[Reply]:
        sent_at = clock()
        first = asyncio.ensure_future(call(asks))
        racing = {first}
        try:
            await asyncio.wait(racing, timeout=delay.seconds)
            texts = sum(len(one.texts) for one in asks if one.priority != OFF_PATH_PRIORITY)
            if not first.done() and texts and budget.spend(texts):
                racing.add(asyncio.ensure_future(call(_later(asks, clock() - sent_at))))
                recorder.incident("hedge_sent", variant, texts)
            out = set(racing)
            while True:
                done, out = await asyncio.wait(out, return_when=asyncio.FIRST_COMPLETED)
                if not out or any(_answers(one) for one in done):
                    break
            come = sorted((one for one in racing if one.done()), key=lambda one: not _answers(one))
            if come[0] is not first and _answers(come[0]):
                recorder.incident("hedge_won", variant, texts)
            return _merged(come)
        finally:
            delay.learn(clock() - sent_at)
            for one in racing:
                one.cancel()

    return ask


def _answers(call: asyncio.Future[list[Reply]]) -> bool:
    """Return whether a call came back with an answer to any of its asks."""
    if call.cancelled() or call.exception() is not None:
        return False
    return not all(isinstance(reply, RequestError) for reply in call.result())


def _merged(come: Sequence[asyncio.Future[list[Reply]]]) -> list[Reply]:
    """Return the best reply to each ask, of calls of which the best comes first."""
    well = [one.result() for one in come if not one.cancelled() and one.exception() is None]
    if not well:
        return come[0].result()
    return [
        next((reply for reply in replies if not isinstance(reply, RequestError)), replies[0])
        for replies in zip(*well, strict=True)
    ]


def _later(asks: list[Ask], seconds: float) -> list[Ask]:
    """Return asks as they are so much later."""
    return [
        replace(
            ask,
            remaining_s=None if ask.remaining_s is None else ask.remaining_s - seconds,
            due_s=None if ask.due_s is None else ask.due_s - seconds,
        )
        for ask in asks
    ]
