"""The hot routes as raw ASGI: POST /v1/classify, the infer routes of the Open Inference Protocol, decisions.

They are not FastAPI routes because its request handling costs more than a cheap stage does; the shell in
serve/http/app.py documents them and answers everything else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any

from contract.errors import RequestError, UnknownModel
from serve.access.gate import Caller, Gate
from serve.access.meter import Meter, Visit
from serve.dataplane.front import Plane
from serve.dataplane.refusals import count_refusal
from serve.http.decisions.routes import DecisionRoutes
from serve.settings.limits import RequestLimits
from serve.types.clock import Clock
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.types.priority import DEFAULT_PRIORITY
from serve.types.recorder import Recorder
from serve.wire import oip, v1
from serve.wire.body import BodyReader, ClientLeft, Receive, check_head, unpacked
from serve.wire.common import Reply, check_sticky_key, priority_of
from serve.wire.decisions.errors import PATHS, in_the_form_of
from serve.wire.errors import error_reply, outcome_of, plain_error
from serve.wire.headers import RequestHeaders, read_headers
from serve.wire.request_ids import HEADER, request_id

log = logging.getLogger(__name__)

_FAILED = "a request failed in a way that none should"

Scope = MutableMapping[str, Any]
Headers = Iterable[tuple[bytes, bytes]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STICKY_KEY = "x-sluice-sticky-key"
CLASSIFY = "/v1/classify"
MODELS = "/v2/models/"
INFER = "/infer"
EXACT = PATHS | {CLASSIFY}


class HotRoutes:
    """Answers the routes that carry the load.

    Args:
        dataplane: decides.
        limits: caps of one request.
        recorder: told of refusals (the data plane tells it of answers).
        gate: asks for keys, once there are some.
        decisions: answers the routes of decision endpoints; None: as their defaults have it.
        clock: the data plane's.
    """

    def __init__(
        self,
        dataplane: Plane,
        limits: RequestLimits,
        recorder: Recorder,
        gate: Gate,
        decisions: DecisionRoutes | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._dataplane = dataplane
        self._decisions = decisions or DecisionRoutes(dataplane, limits, recorder, gate, clock=clock)
        self._limits = limits
        self._bodies = BodyReader(limits.max_body_bytes, limits.max_seconds)
        self._recorder = recorder
        self._gate = gate
        self._clock = clock

    @staticmethod
    def takes(scope: Scope) -> bool:
        """Return whether this request is one of theirs; no other may be passed to `__call__`."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return False
        return HotRoutes.takes_path(scope["path"])

    @staticmethod
    def takes_path(path: str) -> bool:
        """Return whether what is posted to this path is theirs."""
        return path in EXACT or (path.startswith(MODELS) and _infer_target(path) is not None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that `takes` has accepted."""
        arrived_at = self._clock()
        headers = read_headers(scope["headers"])
        identity = request_id(headers.x_request_id)
        try:
            caller = self._caller(headers)
            body = await self._bodies.read(headers, receive)
        except ClientLeft:
            return
        except RequestError as problem:
            reply = in_the_form_of(scope["path"], self._refuse_unread(problem))
        except Exception:
            log.exception(_FAILED)
            reply = in_the_form_of(scope["path"], self._fail())
        else:
            found = self._begin(scope["path"], scope["headers"], headers, body, arrived_at, caller)
            if isinstance(found, Reply):
                reply = found
            elif (answer := await _unless_left(found, receive)) is not None:
                reply = answer
            else:
                return
        await send_reply(reply, identity, send)

    def begin(
        self, path: str, pairs: Headers, body: bytes
    ) -> tuple[bytes, Reply | Coroutine[Any, Any, Reply]]:
        """Return the id of a request that is all here, and its reply, or what finds that, to be awaited.

        Args:
            path: one that `takes` accepts.
            pairs: ASGI's headers.
            body: as sent.
        """
        arrived_at = self._clock()
        headers = read_headers(pairs)
        identity = request_id(headers.x_request_id)
        try:
            caller = self._caller(headers)
            check_head(headers, self._limits.max_body_bytes)
            body = unpacked(headers, body, self._limits.max_body_bytes)
        except RequestError as problem:
            return identity, in_the_form_of(path, self._refuse_unread(problem))
        except Exception:
            log.exception(_FAILED)
            return identity, in_the_form_of(path, self._fail())
        return identity, self._begin(path, pairs, headers, body, arrived_at, caller)

    def _caller(self, headers: RequestHeaders) -> Caller | None:
        """Return whose key is shown; None where none is asked for. Raises as the gate."""
        return self._gate.identify(headers.authorization, "infer") if self._gate.keyed else None

    def _begin(
        self,
        path: str,
        pairs: Headers,
        headers: RequestHeaders,
        body: bytes,
        arrived_at: float,
        caller: Caller | None,
    ) -> Reply | Coroutine[Any, Any, Reply]:
        """Answer a request that is all here, to whoever brought it."""
        if path in PATHS:
            return self._decisions.begin(path, pairs, headers, body, arrived_at, caller)
        try:
            asked = headers.x_sluice_priority
            priority = DEFAULT_PRIORITY if asked is None else priority_of(asked)
            name = "" if caller is None else caller.name
            call: v1.V1Call | oip.InferCall
            if path == CLASSIFY:
                call = v1.parse(body, self._limits, arrived_at, priority, name)
            else:
                length = headers.inference_header_content_length
                model, local = self._model_of(path)
                call = oip.parse(body, length, model, self._limits, arrived_at, priority, name, local)
            if headers.x_sluice_sticky_key is not None and not call.request.sticky_key:
                call.request.sticky_key = check_sticky_key(headers.x_sluice_sticky_key, STICKY_KEY)
            try:
                if caller is not None and caller.meter is not None:
                    return self._metered(call, caller.meter)
                found = self._dataplane.begin(call.request)
                return _render(call, found) if isinstance(found, ClassifyResult) else self._later(call, found)
            except RequestError as problem:
                return self._refuse(call.request, problem)
        except RequestError as problem:
            return self._refuse_unread(problem)
        except Exception:
            log.exception(_FAILED)
            return self._fail()

    def _metered(self, call: v1.V1Call | oip.InferCall, meter: Meter) -> Reply | Coroutine[Any, Any, Reply]:
        """Answer within the limits of a key. Raises LimitReached."""
        assert self._gate.accounts is not None
        texts = len(call.request.texts)
        usd = texts * self._dataplane.dearest_usd(call.request.model) if meter.in_usd else 0.0
        visit = self._gate.accounts.admit(meter, texts, usd)
        found = self._dataplane.begin(call.request)
        if isinstance(found, ClassifyResult):
            visit.end(answered=True)
            return _render(call, found)
        return self._later(call, found, visit)

    async def _later(
        self,
        call: v1.V1Call | oip.InferCall,
        found: Coroutine[Any, Any, ClassifyResult],
        visit: Visit | None = None,
    ) -> Reply:
        try:
            result = await found
            if visit is not None:
                visit.end(answered=True)
            return _render(call, result)
        except RequestError as problem:
            return self._refuse(call.request, problem)
        except asyncio.CancelledError:
            self._recorder.incident("client_left", "")
            raise
        except Exception:
            log.exception(_FAILED)
            return self._fail()

    def _model_of(self, path: str) -> tuple[str, str]:
        """Return the model of an infer path, and its own name in its family.

        Raises UnknownModel for one that is not served.
        """
        model, version = _infer_target(path) or ("", None)
        local = self._dataplane.local_name(model)
        if version is not None and version != oip.VERSION:
            raise UnknownModel(f"{model}, version {version}")
        return model, local

    def _refuse_unread(self, problem: RequestError) -> Reply:
        self._recorder.refused("unknown", outcome_of(problem), 1)
        return error_reply(problem)

    def _fail(self) -> Reply:
        self._recorder.refused("unknown", "server_error", 1)
        return plain_error(500, "internal error")

    def _refuse(self, request: ClassifyRequest, problem: RequestError) -> Reply:
        count_refusal(self._dataplane, self._recorder, request, problem)
        return error_reply(problem)


async def _unless_left(found: Coroutine[Any, Any, Reply], receive: Receive) -> Reply | None:
    """Return the reply; None where the client hangs up first, and then the search is given up."""
    search = asyncio.create_task(found)
    left = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((search, left), return_when=asyncio.FIRST_COMPLETED)
        return search.result() if search.done() else None
    finally:
        search.cancel()
        left.cancel()


async def _disconnected(receive: Receive) -> None:
    """Return once the connection is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _render(call: v1.V1Call | oip.InferCall, result: ClassifyResult) -> Reply:
    return (
        v1.render(result, call.top_k, call.request.asked)
        if isinstance(call, v1.V1Call)
        else oip.render(call, result)
    )


async def send_reply(reply: Reply, identity: bytes, send: Send) -> None:
    """Send a whole reply to the request of that id."""
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        (HEADER, identity),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _infer_target(path: str) -> tuple[str, str | None] | None:
    """Return model and version of an infer path; None for another path."""
    parts = path.split("/")
    if parts[-1] != "infer":
        return None
    if len(parts) == 5:
        return parts[3], None
    if len(parts) == 6:
        return f"{parts[3]}/{parts[4]}", None
    if len(parts) in (7, 8) and parts[-3] == "versions":
        return "/".join(parts[3:-3]), parts[-2]
    return None
