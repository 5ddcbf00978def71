"""The short way into a gateway replica: Serve's HTTP middleware hook, which comes before its bookkeeping.

Ray Serve calls `middlewares` in every replica whose environment names it as the HTTP proxy callback, before
it starts the replica's HTTP server. That server then reads the fast routes' requests by our own connections,
and what is left comes to our middleware before any of Serve's. Without the hook the same requests are
answered through the deployment's ingress, only slower.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS

from serve.http.connection import Connection
from serve.http.fast_routes import HotRoutes
from serve.ray.gateway_replica import GatewayReplica

IMPORT_PATH = "serve.ray.ingress_middleware.middlewares"
_HEALTH = b"/-/healthz"

_here: list[GatewayReplica] = []


def install(replica: GatewayReplica) -> None:
    """Name the gateway replica that this process runs; there is one per process."""
    _here[:] = [replica]


def middlewares() -> list[Middleware]:
    """Return the middleware, in the form that Serve asks for, and have its server use `ReplicaConnection`."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{ReplicaConnection.__name__}"
    return [Middleware(ShortWay)]


class ReplicaConnection(Connection):
    """A connection to the replica that this process runs."""

    def fast_routes(self) -> HotRoutes | None:
        """Return its routes; None until it is installed."""
        return _here[0].gateway.hot if _here else None


class ShortWay:
    """Sends requests straight to the gateway, but HAProxy's question for health, which is for Serve."""

    def __init__(self, app: ASGIApp) -> None:
        self._serve = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if not _here or scope["type"] != "http":
            await self._serve(scope, receive, send)
        elif scope["raw_path"] != _HEALTH:
            await _here[0].gateway(scope, receive, send)
        elif not _here[0].healthy:
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"BEHIND"})
        else:
            await self._serve(scope, receive, send)
