"""What HTTP clients may vary without meaning anything else: HEAD for GET, slashes too many, OPTIONS."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SLASHES = re.compile("/{2,}")
_ORDER = ("GET", "HEAD", "POST", "OPTIONS")


def allowed(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """Return the methods that a path offers, HEAD and OPTIONS included; empty for an unknown path."""
    found: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            found |= route.methods or set()
    if not found:
        return []
    found |= {"OPTIONS"} | ({"HEAD"} if "GET" in found else set())
    return [method for method in _ORDER if method in found]


class Forgiving:
    """ASGI middleware: answers HEAD as GET without the body, and reads `//v2/` as `/v2`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = _SLASHES.sub("/", scope["path"])
        path = path.rstrip("/") or "/"
        if path != scope["path"]:
            scope = {**scope, "path": path, "raw_path": path.encode()}
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def head_only(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, head_only)
