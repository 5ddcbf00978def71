"""The hot routes as raw ASGI: POST /v1/classify and the infer routes of the Open Inference Protocol.

They are not FastAPI routes because its request handling costs more than a cheap stage does; the shell in
serve/http/app.py documents them and answers everything else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from contract.errors import RequestError, UnknownModel
from contract.metrics import Outcome
from serve.access.gate import Gate
from serve.dataplane.plane import DataPlane
from serve.settings.limits import RequestLimits
from serve.types.clock import Clock
from serve.types.messages import ClassifyRequest
from serve.types.priority import DEFAULT_PRIORITY
from serve.types.recorder import Recorder
from serve.wire import oip, v1
from serve.wire.body import BodyReader, ClientLeft, Receive
from serve.wire.common import Reply, priority_of
from serve.wire.errors import error_reply, outcome_of, plain_error
from serve.wire.headers import read_headers
from serve.wire.request_ids import HEADER, request_id

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLASSIFY = "/v1/classify"
MODELS = "/v2/models/"
INFER = "/infer"


class HotRoutes:
    """Answers the routes that carry the load.

    Args:
        dataplane: decides.
        limits: caps of one request.
        recorder: told of refusals (the data plane tells it of answers).
        gate: asks for keys, once there are some.
        clock: the data plane's.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        limits: RequestLimits,
        recorder: Recorder,
        gate: Gate,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._dataplane = dataplane
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
        path = scope["path"]
        return path == CLASSIFY or (path.startswith(MODELS) and _infer_target(path) is not None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that `takes` has accepted."""
        arrived_at = self._clock()
        headers = read_headers(scope["headers"])
        identity = request_id(headers.x_request_id)
        try:
            caller = ""
            if self._gate.keyed:
                caller = self._gate.identify(headers.authorization, "infer").name
            body = await self._bodies.read(headers, receive)
            asked = headers.x_sluice_priority
            priority = DEFAULT_PRIORITY if asked is None else priority_of(asked)
            if scope["path"] == CLASSIFY:
                reply = await self._classify(body, arrived_at, priority, caller)
            else:
                length = headers.inference_header_content_length
                reply = await self._infer(scope["path"], body, length, arrived_at, priority, caller)
        except ClientLeft:
            return
        except RequestError as problem:
            self._recorder.refused("unknown", outcome_of(problem), 1)
            reply = error_reply(problem)
        except Exception:
            log.exception("a request failed in a way that none should")
            self._recorder.refused("unknown", "server_error", 1)
            reply = plain_error(500, "internal error")
        await send_reply(reply, identity, send)

    async def _classify(self, body: bytes, arrived_at: float, priority: int, caller: str) -> Reply:
        call = v1.parse(body, self._limits, arrived_at, priority, caller)
        try:
            return v1.render(await self._dataplane.classify(call.request), call.top_k)
        except RequestError as problem:
            return self._refuse(call.request, problem)

    async def _infer(
        self,
        path: str,
        body: bytes,
        header_length: bytes | None,
        arrived_at: float,
        priority: int,
        caller: str,
    ) -> Reply:
        model, version = _infer_target(path) or ("", None)
        self._dataplane.check_served(model)
        if version is not None and version != oip.VERSION:
            raise UnknownModel(f"{model}, version {version}")
        call = oip.parse(body, header_length, model, self._limits, arrived_at, priority, caller)
        try:
            return oip.render(call, await self._dataplane.classify(call.request))
        except RequestError as problem:
            return self._refuse(call.request, problem)

    def _refuse(self, request: ClassifyRequest, problem: RequestError) -> Reply:
        outcome: Outcome = outcome_of(problem)
        model = request.model if self._dataplane.serves(request.model) else "unknown"
        self._recorder.refused(model, outcome, len(request.texts))
        return error_reply(problem)


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
    if len(parts) == 7 and parts[4] == "versions":
        return parts[3], parts[5]
    return None
