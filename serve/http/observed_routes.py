"""The hot routes where somebody watches single requests: a span around each, and its line in the log."""

from __future__ import annotations

import time
from collections.abc import Coroutine, MutableMapping
from typing import Any

from serve.access.gate import Caller, Gate
from serve.dataplane.front import Plane
from serve.http.decisions.routes import DecisionRoutes
from serve.http.fast_routes import EXACT, Headers, HotRoutes, Scope, Send
from serve.settings.limits import RequestLimits
from serve.telemetry.observer import Observer, note_caller
from serve.types.clock import Clock
from serve.types.recorder import Recorder
from serve.wire.body import Receive
from serve.wire.common import Reply
from serve.wire.headers import RequestHeaders
from serve.wire.request_ids import HEADER


class ObservedRoutes(HotRoutes):
    """Answers as the hot routes do, and tells the observer of each request."""

    def __init__(
        self,
        dataplane: Plane,
        limits: RequestLimits,
        recorder: Recorder,
        gate: Gate,
        observer: Observer,
        decisions: DecisionRoutes | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(dataplane, limits, recorder, gate, decisions, clock=clock)
        self._observer = observer

    def _caller(self, headers: RequestHeaders) -> Caller | None:
        caller = super()._caller(headers)
        if caller is not None:
            note_caller(caller.name)
        return caller

    def begin(
        self, path: str, pairs: Headers, body: bytes
    ) -> tuple[bytes, Reply | Coroutine[Any, Any, Reply]]:
        """See HotRoutes."""
        watch = self._observer.watch(_name(path), pairs)
        identity, found = super().begin(path, pairs, body)
        if isinstance(found, Reply):
            watch.end(found.status, identity, failed=found.status >= 400)
            return identity, found

        async def watched() -> Reply:
            with watch:
                reply = await found
                watch.end(reply.status, identity, failed=reply.status >= 400)
            return reply

        return identity, watched()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See HotRoutes."""
        status = 0
        identity = b""

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status, identity
            if message["type"] == "http.response.start":
                status = message["status"]
                identity = next((value for key, value in message["headers"] if key == HEADER), b"")
            await send(message)

        with self._observer.watch(_name(scope["path"]), scope["headers"]) as watch:
            await super().__call__(scope, receive, noting)
            watch.end(status, identity, failed=status >= 400 or status == 0)


def _name(path: str) -> str:
    """Return the name of a request's span; a model's name, which a client chooses, is not in it."""
    return f"POST {path}" if path in EXACT else "POST /v2/models/{model}/infer"
