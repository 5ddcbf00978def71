"""The doors of the gateway: what is open without a key once there are keys, and the gate before all else."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from contract.errors import RequestError
from serve.access.gate import Gate
from serve.http.fast_routes import send_reply
from serve.settings.access import AccessSettings
from serve.types.recorder import Recorder
from serve.wire.decisions.errors import in_the_form_of
from serve.wire.errors import error_reply, outcome_of
from serve.wire.headers import read_headers
from serve.wire.request_ids import request_id

HEALTH = frozenset({"/v2/health/live", "/v2/health/ready"})
DOCS = frozenset({"/docs", "/openapi.json"})
METRICS = "/metrics"


def is_open(path: str, access: AccessSettings) -> bool:
    """Return whether a path is answered without a key; one that is written another way is not."""
    if path in HEALTH:
        return True
    if path == METRICS:
        return access.open_metrics
    return access.open_docs and path in DOCS


class Doors:
    """ASGI middleware: asks for a key, once there are some, before what it wraps sees the request.

    It stands inside the application, so that every host that calls that one asks, Ray's own proxy too.

    Args:
        app: what is wrapped.
        gate: asks for keys.
        access: what is open without one.
        recorder: told of refusals.
    """

    def __init__(self, app: ASGIApp, gate: Gate, access: AccessSettings, recorder: Recorder) -> None:
        self._app = app
        self._gate = gate
        self._access = access
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if self._gate.keyed and scope["type"] == "http" and not is_open(scope["path"], self._access):
            headers = read_headers(scope["headers"])
            try:
                self._gate.identify(headers.authorization, None)
            except RequestError as problem:
                self._recorder.refused("unknown", outcome_of(problem), 1)
                reply = in_the_form_of(scope["path"], error_reply(problem))
                await send_reply(reply, request_id(headers.x_request_id), send)
                return
        await self._app(scope, receive, send)
