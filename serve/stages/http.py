"""A stage behind HTTP: a model that is somebody else's server, asked from the gateway's own process.

What waits, who goes first, the breaker and what is sent again are those of every stage behind a call; here is
what a call is: requests of one client, bounded by what is left of the time, and what their failures mean.
"""

from __future__ import annotations

import asyncio
import logging
import time
from math import ceil, inf
from pathlib import Path

from contract.errors import (
    DeadlineExceeded,
    EnvironmentProblem,
    FailureKind,
    Overloaded,
    RemoteFailure,
    RequestError,
    StageBroken,
    StageFailed,
)
from contract.family import Family
from contract.files import check_sha256, inside
from contract.remote import RemoteModel
from runtime.remote.answered import Answered
from runtime.remote.client import RemoteClient
from runtime.remote.record import read_remote
from serve.settings.gateway import Settings
from serve.settings.scaling import most
from serve.settings.stages import StageSettings
from serve.stages.call import Ask, Reply, StageUnreachable
from serve.stages.forecast import CallForecast
from serve.stages.remote import RemoteStage
from serve.types.clock import Clock
from serve.types.recorder import BatchRecord, Incident, Recorder

log = logging.getLogger(__name__)

_NOT_OURS = {401, 403, 404, 405}
"""Replies of a server that will not have this gateway, whatever it asks."""
_OF_OURS = {401, 403, 404}
"""Statuses whose message is of our own words."""
_TELL_EVERY_S = 10.0
_BUSY_TRIES = 2
_FAILED: dict[FailureKind, Incident] = {
    "unreachable": "call_unreachable",
    "late": "call_late",
    "busy": "call_busy",
    "broken": "call_broken",
    "rejected": "call_rejected",
    "unreadable": "call_unreadable",
    "declined": "call_declined",
}


class ServerForecast(CallForecast):
    """Of a server that answers so many calls at a time, each as fast as alone.

    Args:
        max_items: of a call.
        calls: at a time.
    """

    __slots__ = ("_calls",)

    def __init__(self, max_items: int, calls: int) -> None:
        super().__init__(max_items)
        self._calls = calls

    @property
    def window(self) -> float:
        """Items that may be under way: the calls at a time bound them."""
        return inf

    def came_back(self, items: int, sent_at: float, now: float, *, alone: bool = True) -> None:  # noqa: ARG002
        """A call of so many items was answered."""
        self.learn(items, now - sent_at)

    def ends_s(self, now: float, place: int, waiting: int) -> float:  # noqa: ARG002
        """Return the seconds until that place is answered: as many rounds of calls as it takes."""
        size = max(min(self.limit, place), 1)
        calls = ceil(self.under_way / self.limit) + ceil(place / size)
        return ceil(calls / self._calls) * self.pace.of(size) + self.margin_s


class HttpCalls:
    """Sends the asks of one stage.

    No request is begun after the deadline of what it carries. One that is out is bounded by the record's
    `timeout_s` alone: the stage calls it off when nobody waits, or lets it run on to learn whether the server
    hangs.

    Args:
        variant: its name.
        client: asks the server.
        recorder: told of every call, and of failures by kind.
        clock: seconds.
    """

    def __init__(self, variant: str, client: RemoteClient, recorder: Recorder, clock: Clock) -> None:
        self._variant = variant
        self._client = client
        self._recorder = recorder
        self._clock = clock
        self._booked_usd = 0.0
        self._told_at: dict[FailureKind, float] = {}
        self._waited_for: dict[int, asyncio.Task[object]] = {}
        self._left: dict[asyncio.Task[object], int] = {}

    async def call(self, asks: list[Ask]) -> list[Reply]:
        """Return a reply to each ask.

        Raises:
            StageUnreachable: there was none, and another time there may be.
        """
        work = asyncio.ensure_future(self._answers(asks))
        self._left[work] = len(asks)
        self._waited_for.update((ask.number, work) for ask in asks)
        try:
            return await work
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                work.cancel()
                raise
            return [DeadlineExceeded(f"nobody waits for {self._variant} any more") for _ in asks]
        finally:
            del self._left[work]
            for ask in asks:
                self._waited_for.pop(ask.number, None)

    async def call_off(self, numbers: list[int]) -> None:
        """End the requests that nobody waits for any more."""
        for number in numbers:
            work = self._waited_for.pop(number, None)
            if work is None or work not in self._left:
                continue
            self._left[work] -= 1
            if not self._left[work]:
                work.cancel()

    async def _answers(self, asks: list[Ask]) -> list[Reply]:
        texts = [text for ask in asks for text in ask.texts]
        limits = [ask.remaining_s for ask in asks]
        patience_s = max((one for one in limits if one is not None), default=None)
        if None in limits:
            patience_s = None
        began = self._clock()
        try:
            answered = await self._ask(texts, patience_s)
        except RemoteFailure as failure:
            self._recorder.incident(_FAILED[failure.kind], self._variant, len(texts))
            self._tell(failure)
            alone = len(asks) == 1
            if not alone and not failure.passes and failure.status not in _NOT_OURS:
                return [(await self._answers([ask]))[0] for ask in asks]  # one of them it is
            took_s = self._clock() - began
            unasked = patience_s is not None and patience_s <= took_s < self._client.model.timeout_s
            problem = self._meaning(failure, unasked)
            return [problem for _ in asks]
        except EnvironmentProblem as problem:
            log.error("%s: %s", self._variant, problem)
            return [StageBroken(f"{self._variant} has lost its key") for _ in asks]
        charged_usd, self._booked_usd = self._client.usd - self._booked_usd, self._client.usd
        took_s = self._clock() - began
        self._recorder.batch(
            BatchRecord(self._variant, len(texts), (), took_s, 0.0, began, charged_usd=charged_usd)
        )
        logits = answered.logits(len(self._client.labels))
        replies: list[Reply] = []
        start = 0
        for ask in asks:
            replies.append(logits[start : start + len(ask.texts)])
            start += len(ask.texts)
        return replies

    async def _ask(self, texts: list[str], patience_s: float | None) -> Answered:
        """Ask, and wait for a server that is busy and will be back in time, a few times."""
        until = inf if patience_s is None else self._clock() + patience_s
        busy = 0
        while True:
            left_s = None if until == inf else until - self._clock()
            try:
                return await self._client.ask(texts, patience_s=left_s, retries=0, ends=False)
            except RemoteFailure as failure:
                busy += 1
                back_s = failure.retry_after_s
                waits = failure.kind == "busy" and back_s is not None and busy <= _BUSY_TRIES
                if not waits or self._clock() + (back_s or 0.0) >= until:
                    raise
                self._recorder.incident("call_busy", self._variant, len(texts))

    def _meaning(self, failure: RemoteFailure, unasked: bool) -> RequestError:
        """Return what a failure is to the data plane. Raises StageUnreachable where another try may help."""
        name = self._variant
        if failure.kind == "busy":
            return Overloaded(f"{name} is busy", retry_after_s=failure.retry_after_s or 1.0)
        if failure.kind == "late" and unasked:
            return DeadlineExceeded(f"the deadline passed while waiting for {name}")
        if failure.passes:
            raise StageUnreachable(f"{name} does not answer")
        if failure.kind == "unreadable" or failure.status in _NOT_OURS:
            return StageBroken(f"{name} gives no usable answer")
        return StageFailed(f"{name} has no answer to this request")

    def _tell(self, failure: RemoteFailure) -> None:
        now = self._clock()
        if now >= self._told_at.get(failure.kind, -inf) + _TELL_EVERY_S:
            self._told_at[failure.kind] = now
            log.warning(
                "%s is not answered by its server (%s): %s", self._variant, failure.kind, _words(failure)
            )


def _words(failure: RemoteFailure) -> str:
    """Return what may stand in a log: nothing that a server said, which may quote the text it was asked."""
    if failure.status is None or failure.kind == "unreadable" or failure.status in _OF_OURS:
        return str(failure)
    return f"HTTP {failure.status}"


class HttpStage(RemoteStage):
    """Answers by a server elsewhere, within the limits of its record and the gateway's settings."""

    def __init__(
        self,
        variant: str,
        artifact_sha256: str,
        client: RemoteClient,
        settings: StageSettings,
        recorder: Recorder,
        *,
        clock: Clock = time.monotonic,
        family: str = "",
    ) -> None:
        calls = HttpCalls(variant, client, recorder, clock)
        rules = settings.batch.model_copy(update={"max_items": client.batch})
        settings = settings.model_copy(
            update={"batch": rules, "replicas": 1, "calls_in_flight": client.max_concurrency}
        )
        super().__init__(
            variant,
            calls.call,
            _there,
            settings,
            call_off=calls.call_off,
            recorder=recorder,
            clock=clock,
            forecast=ServerForecast(client.batch, client.max_concurrency),
        )
        self.artifact_sha256 = artifact_sha256
        self.family = family
        self._client = client

    @property
    def instructions(self) -> str | None:
        """How the question is put, where it is one as applications put them."""
        model = self._client.model
        return model.instructions if model.form == "decisions" else None

    @property
    def hangs(self) -> bool:
        """Return False: a request that takes too long is ended."""
        return False

    @property
    def asked(self) -> RemoteModel:
        """Which model it asks, where and how."""
        return self._client.model

    async def close(self) -> None:
        """Finish what is inside and close the connections."""
        while under_way := [call.task for call in self._calls if call.task is not None]:
            await asyncio.wait(under_way)
        if (witness := self._watch.end()) is not None:
            await asyncio.wait([witness])
        await self._client.close()


async def _there() -> bool:
    """A gateway whose server is away still gives the answers of the stages before it, so it is ready."""
    return True


def load_http_stage(
    settings: Settings, folder: Path, family: Family, name: str, recorder: Recorder, *, served: str = ""
) -> HttpStage:
    """Return the stage of a remote variant; its server is not asked yet.

    Of the requests that the record allows at a time, and per second, each gateway replica has its share; at a
    time it is one at the least.

    Raises:
        FamilyError: the record is altered, or does not fit the family.
        EnvironmentProblem: its key is not to be found here.
    """
    variant = family.variant(name)
    path = inside(folder, variant.artifact.path)
    check_sha256(path, variant.artifact.sha256)
    model = read_remote(path)
    replicas = settings.gateway_replicas if settings.replicas is None else most(settings.replicas)
    if model.max_per_s is not None:
        model = model.model_copy(update={"max_per_s": model.max_per_s / replicas})
    client = RemoteClient(model, family.labels, max_concurrency=max(model.max_concurrency // replicas, 1))
    own = settings.stage_of(name)
    return HttpStage(name, variant.artifact.sha256, client, own, recorder, family=served)
