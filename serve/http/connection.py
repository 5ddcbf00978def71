"""A client's connection to a gateway replica: the short way from bytes to bytes for the fast routes.

A request that is all there when its bytes are read is handed to the fast routes as it is, and its reply is
one write: no ASGI events, and no task where the answer is there at once. Every other request, one whose body
is still on its way among them, takes uvicorn's way to the ASGI application, which gives the same answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serve.http.fast_routes import EXACT, INFER, MODELS, HotRoutes
from serve.wire.common import JSON_TYPE, Reply
from serve.wire.errors import plain_error
from serve.wire.request_ids import HEADER

log = logging.getLogger(__name__)

_EXACT = frozenset(path.encode() for path in EXACT)
_MODELS = MODELS.encode()
_INFER = INFER.encode()
_ELSEWHERE = (b"?", b"%", b"#")
_JSON = b"content-type: " + JSON_TYPE + b"\r\ncontent-length: %d\r\n" + HEADER + b": %b\r\n"
_OTHER = b"content-type: %b\r\ncontent-length: %d\r\n" + HEADER + b": %b\r\n"


class Connection(HttpToolsProtocol):
    """One connection. A class below says where the fast routes are."""

    _parts: list[bytes] | None = None
    """The body of a request that may be answered the short way, as far as it is there."""
    _idle_since = 0.0
    _closes: asyncio.TimerHandle | None = None

    def fast_routes(self) -> HotRoutes | None:
        """Return the routes that are answered the short way; None where all go through ASGI."""
        return None

    def data_received(self, data: bytes) -> None:
        """Answer what is complete; leave to uvicorn what is not."""
        self._idle_since = 0.0
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._parts = None
            self.send_400_response("Invalid HTTP request received.")
            return
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()
        if self._parts is not None:
            self._leave_to_asgi()

    def on_message_begin(self) -> None:
        """Keep what may be needed; the ASGI scope is made where ASGI is."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Choose the way."""
        if self._is_short():
            self._parts = []
        else:
            self._begin_asgi()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Answer, if this request goes the short way."""
        parts = self._parts
        if parts is None:
            super().on_message_complete()
            return
        routes = self.fast_routes()
        if routes is None:
            self._leave_to_asgi()
            super().on_message_complete()
            return
        self._parts = None
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        identity, found = routes.begin(self.url.decode("ascii"), self.headers, body)
        keep_alive = self.parser.should_keep_alive()
        if isinstance(found, Reply):
            self._write(found, identity, keep_alive)
            self.server_state.total_requests += 1
            self._is_idle_now()
        else:
            self.cycle = cast(RequestResponseCycle, _Exchange(self, identity, found, keep_alive))

    def _is_short(self) -> bool:
        """Whether nothing about this request needs what uvicorn does beyond reading it."""
        url, cycle, parser = self.url, self.cycle, self.parser
        return (
            (url in _EXACT or (url.startswith(_MODELS) and url.endswith(_INFER) and _is_plain(url)))
            and parser.get_method() == b"POST"
            and (cycle is None or cycle.response_complete)
            and parser.get_http_version() == "1.1"
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and self.limit_concurrency is None
            and not self.root_path
            and self.fast_routes() is not None
        )

    def _is_idle_now(self) -> None:
        """Close the connection if no byte comes for as long as uvicorn waits: one timer for many requests."""
        self._idle_since = self.loop.time()
        if self._closes is None:
            self._closes = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._closes = None
        if self.transport.is_closing() or not self._idle_since:
            return
        closes_at = self._idle_since + self.timeout_keep_alive
        if self.loop.time() >= closes_at:
            self.timeout_keep_alive_handler()
        else:
            self._closes = self.loop.call_at(closes_at, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers and the last request, so that nothing is left of a connection that is gone.

        After a reset uvicorn lets its own timer run, which would keep all this for a minute and a half; and
        connection and request know each other, which would keep both until garbage is collected.
        """
        if self._closes is not None:
            self._closes.cancel()
            self._closes = None
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.cycle = cast(RequestResponseCycle, None)

    def _begin_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def _leave_to_asgi(self) -> None:
        """Go on with a request that began the short way as uvicorn would have begun it."""
        parts, self._parts = self._parts, None
        self._begin_asgi()
        if parts:
            super().on_body(b"".join(parts))

    def _write(self, reply: Reply, identity: bytes, keep_alive: bool) -> None:
        """Write a whole reply."""
        body = reply.body
        if reply.content_type is JSON_TYPE:
            head = _JSON % (len(body), identity)
        else:
            head = _OTHER % (reply.content_type, len(body), identity)
        parts = [STATUS_LINE[reply.status], head]
        for name, value in reply.headers:
            parts += (name, b": ", value, b"\r\n")
            if name == b"connection" and value == b"close":
                keep_alive = False
                parts = parts[:-4]
        if not keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", body)
        self.transport.write(b"".join(parts))
        if not keep_alive:
            self.transport.close()


def connections_to(routes: HotRoutes) -> type[Connection]:
    """Return the class of connections to a server of these routes, as uvicorn's `http` takes it."""

    class Bound(Connection):
        def fast_routes(self) -> HotRoutes:
            return routes

    return Bound


class _Exchange:
    """A request whose answer is still sought, in the form that uvicorn knows requests by.

    Attributes:
        response_complete, disconnected, keep_alive, message_event: as of `RequestResponseCycle`; what is set
            at the event is this object, which then gives the search up if the client has gone.
    """

    __slots__ = ("_connection", "_identity", "_task", "disconnected", "keep_alive", "response_complete")

    def __init__(
        self,
        connection: Connection,
        identity: bytes,
        found: Coroutine[Any, Any, Reply],
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._identity = identity
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self._task = connection.loop.create_task(found)
        connection.tasks.add(cast(asyncio.Task[None], self._task))
        self._task.add_done_callback(self._done)

    @property
    def message_event(self) -> _Exchange:
        """What uvicorn sets when something happens to the connection."""
        return self

    def set(self) -> None:
        """End the search where nobody waits for it any more."""
        if self.disconnected and not self.response_complete:
            self._task.cancel()

    def _done(self, task: asyncio.Task[Reply]) -> None:
        connection = self._connection
        connection.tasks.discard(cast(asyncio.Task[None], task))
        self.response_complete = True
        if self.disconnected or connection.transport.is_closing():
            if not task.cancelled():
                task.exception()
            return
        try:
            connection._write(task.result(), self._identity, self.keep_alive)
        except BaseException:
            log.exception("a request ended in a way that none should")
            connection._write(plain_error(500, "internal error"), self._identity, self.keep_alive)
        connection.on_response_complete()


def _is_plain(url: bytes) -> bool:
    return not any(mark in url for mark in _ELSEWHERE) and HotRoutes.takes_path(
        url.decode("ascii", "replace")
    )
