"""POST /v1/decisions and /v1/systemone: from a request that is all here to its reply."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from contract.errors import LimitReached, RequestError
from serve.access.gate import Caller, Gate
from serve.dataplane.front import Plane
from serve.dataplane.refusals import count_refusal
from serve.http.decisions.answerers import Answerers
from serve.http.decisions.call import Call, Waiting, give_up
from serve.http.decisions.passing import Passing
from serve.http.decisions.replies import render
from serve.settings.decisions import DecisionSettings
from serve.settings.limits import RequestLimits
from serve.types.clock import Clock
from serve.types.current import REQUEST_ID
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.types.priority import DEFAULT_PRIORITY
from serve.types.recorder import Recorder
from serve.upstream.client import UPSTREAM, Headers, Upstream
from serve.wire.common import Reply, check_sticky_key, priority_of
from serve.wire.decisions.asked import InvalidRequest
from serve.wire.decisions.errors import openai_error
from serve.wire.decisions.forms import FORMS, Found
from serve.wire.decisions.matching import Unserved
from serve.wire.errors import outcome_of
from serve.wire.headers import RequestHeaders

log = logging.getLogger(__name__)

_FAILED = "a decision request failed in a way that none should"
_STICKY_KEY = "x-sluice-sticky-key"


class DecisionRoutes:
    """Answers the routes of decision endpoints.

    Args:
        dataplane: decides.
        limits: caps of one request.
        recorder: told of refusals, and of what was answered upstream.
        gate: meters keys.
        settings: who answers what; None: as the labels have it.
        upstream: asked what nobody here answers; None: that is refused.
        clock: the data plane's.
    """

    def __init__(
        self,
        dataplane: Plane,
        limits: RequestLimits,
        recorder: Recorder,
        gate: Gate,
        settings: DecisionSettings | None = None,
        upstream: Upstream | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._recorder = recorder
        self._gate = gate
        alone = upstream is None
        self._answerers = Answerers(dataplane, settings or DecisionSettings(), limits, alone=alone)
        self._passing = None if upstream is None else Passing(upstream, limits, recorder, gate, clock)

    def begin(
        self,
        path: str,
        pairs: Headers,
        headers: RequestHeaders,
        body: bytes,
        arrived_at: float,
        caller: Caller | None,
    ) -> Reply | Coroutine[Any, Any, Reply]:
        """Answer a request that is all here, or return what finds the answer, to be awaited."""
        try:
            call = self._read(path, pairs, headers, body, arrived_at, "" if caller is None else caller.name)
        except RequestError as problem:
            self._recorder.refused("unknown", outcome_of(problem), 1)
            return openai_error(problem)
        except Exception:
            log.exception(_FAILED)
            return self._fail()
        waiting: Waiting = {}
        try:
            if caller is not None and caller.meter is not None:
                self._admit(call, caller)
            for model, request in call.requests.items():
                found = self._ask(request)
                if isinstance(found, ClassifyResult):
                    call.results[model] = found
                else:
                    waiting[model] = found
            if waiting or call.left:
                return self._later(call, waiting)
            reply = render(call, None)
            call.end(answered=True)
            return reply
        except RequestError as problem:
            give_up(waiting)
            return openai_error(problem)
        except Exception:
            log.exception(_FAILED)
            give_up(waiting)
            return self._fail()

    def _read(
        self,
        path: str,
        pairs: Headers,
        headers: RequestHeaders,
        body: bytes,
        arrived_at: float,
        caller: str,
    ) -> Call:
        """Return what is asked of whom. Raises RequestError."""
        form = FORMS[path]
        asked = form.parse(body, self._limits)
        given = headers.x_sluice_priority
        priority = DEFAULT_PRIORITY if given is None else priority_of(given)
        sticky_key = asked.sticky_key
        if not sticky_key and headers.x_sluice_sticky_key is not None:
            sticky_key = check_sticky_key(headers.x_sluice_sticky_key, _STICKY_KEY)
        matches = self._answerers.of(asked)
        requests: dict[str, ClassifyRequest] = {}
        left = []
        for position, match in enumerate(matches):
            if isinstance(match, Unserved):
                left.append(position)
            elif match.model not in requests:
                texts = [asked.images[0] if match.by_image else asked.text]
                requests[match.model] = ClassifyRequest(
                    match.model, texts, asked.timeout_s, arrived_at, caller, priority, sticky_key
                )
        if left and self._passing is None:
            if asked.unread is not None:
                raise asked.unread
            where = form.place(asked.questions[left[0]], left[0])
            reason = matches[left[0]].reason  # type: ignore[union-attr]
            raise InvalidRequest(f"{where} is not answered here: {reason}", where, "question_not_served")
        identity = REQUEST_ID.get()
        return Call(form, asked, body, pairs, identity, arrived_at, caller, matches, requests, left)

    def _admit(self, call: Call, caller: Caller) -> None:
        """Take the key's part: each question counts, and what the models cost at the most.

        Raises LimitReached.
        """
        assert self._gate.accounts is not None
        assert caller.meter is not None
        usd = 0.0
        if caller.meter.in_usd:
            usd = sum(self._dataplane.dearest_usd(model) for model in call.requests)
            if self._passing is not None and call.left:
                self._passing.check_price()
                usd += self._passing.usd_per_question * len(call.left)
        questions = len(call.asked.questions)
        try:
            call.visit = self._gate.accounts.admit(caller.meter, questions, usd)
        except LimitReached as problem:
            first = next(iter(call.requests.values()), None)
            whose = None if first is None else self._dataplane.whose(first)
            model, told = whose or (UPSTREAM, self._recorder)
            told.refused(model, outcome_of(problem), questions)
            self._recorder.limited(caller.name, problem.limit, questions)
            raise

    def _ask(self, request: ClassifyRequest) -> ClassifyResult | Coroutine[Any, Any, ClassifyResult]:
        try:
            return self._dataplane.begin(request)
        except RequestError as problem:
            count_refusal(self._dataplane, self._recorder, request, problem)
            raise

    async def _later(self, call: Call, waiting: Waiting) -> Reply:
        try:
            passed: Reply | Found | None = None
            if not call.left and len(waiting) == 1:
                [(model, found)] = waiting.items()
                await self._wait(call, model, found)
            else:
                passed = await self._wait_for_all(call, waiting)
            if isinstance(passed, Reply):
                return passed
            reply = render(call, passed)
            call.end(answered=True)
            return reply
        except RequestError as problem:
            return openai_error(problem)
        except asyncio.CancelledError:
            self._recorder.incident("client_left", "")
            raise
        except Exception:
            log.exception(_FAILED)
            return self._fail()
        finally:
            call.end(answered=False)

    async def _wait(self, call: Call, model: str, found: Coroutine[Any, Any, ClassifyResult]) -> None:
        try:
            call.results[model] = await found
        except RequestError as problem:
            count_refusal(self._dataplane, self._recorder, call.requests[model], problem)
            raise

    async def _wait_for_all(self, call: Call, waiting: Waiting) -> Reply | Found | None:
        """Wait for every model and the upstream, all at once; the first that fails ends the others."""
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._wait(call, model, found)) for model, found in waiting.items()
        ]
        passing = None
        if call.left and self._passing is not None:
            passing = asyncio.create_task(self._passing.ask(call))
            tasks.append(passing)
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            await _end(tasks)
            # What is raised holds this frame: tasks in it, which hold what is raised, would stay for long.
            tasks.clear()
            del passing
            raise
        return None if passing is None else passing.result()

    def _fail(self) -> Reply:
        self._recorder.refused("unknown", "server_error", 1)
        return openai_error(RequestError("internal error"))


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
