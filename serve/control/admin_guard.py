"""Who may use the admin interface: holders of a key for it, or, before there is one, this machine's programs.

A browser is no such program: any page that it shows can send requests to loopback, by its own name too once
that name resolves to 127.0.0.1. So without a key the Host header must be a name of this machine, and a
request that a page made must come from the interface's own pages.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from contract.errors import Forbidden, NotReady, Unauthorized
from serve.access.gate import Gate

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = "/health"


class Guard:
    """ASGI wrapper around the admin application.

    Args:
        app: the application.
        gate: follows the keys.
        always_keyed: a key is asked for although none was made yet: the interface is reached from elsewhere.
    """

    def __init__(self, app: App, gate: Gate, *, always_keyed: bool) -> None:
        self._app = app
        self._gate = gate
        self._always_keyed = always_keyed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if scope["type"] == "http" and scope["path"] != OPEN:
            headers = dict(scope["headers"])
            refusal = self._foreign(headers) or self._unknown(headers)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _foreign(self, headers: dict[bytes, bytes]) -> JSONResponse | None:
        """Return the refusal of what a page of somebody else sends."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._keyed and not _is_ours(host):
            return JSONResponse({"error": "the Host header must be a name of this machine"}, 403)
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() not in {
            f"http://{host}",
            f"https://{host}",
        }:
            return JSONResponse({"error": "not from another site's page"}, 403)
        if headers.get(b"sec-fetch-site", b"none") not in {b"none", b"same-origin"}:
            return JSONResponse({"error": "not from another site's page"}, 403)
        return None

    def _unknown(self, headers: dict[bytes, bytes]) -> JSONResponse | None:
        """Return the refusal of who shows no key where one is asked for."""
        if not self._keyed:
            return None
        try:
            self._gate.identify(headers.get(b"authorization"), "admin")
        except Unauthorized as problem:
            return JSONResponse({"error": str(problem)}, 401, {"www-authenticate": 'Bearer realm="admin"'})
        except Forbidden as problem:
            return JSONResponse({"error": str(problem)}, 403)
        except NotReady as problem:
            return JSONResponse({"error": str(problem)}, 503, {"retry-after": "1"})
        return None

    @property
    def _keyed(self) -> bool:
        book = self._gate.book
        return self._always_keyed or self._gate.is_shut or (book is not None and book.asks_admins)


def _is_ours(host: str) -> bool:
    """Whether a Host header means this machine itself."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
