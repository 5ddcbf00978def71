"""Reading a request body from ASGI: capped as it arrives and as it unpacks, whatever its headers claim."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from contract.errors import BadRequest, TooLarge
from serve.wire.common import GZIP, JSON_TYPE
from serve.wire.headers import RequestHeaders

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

ENCODINGS = (b"gzip", b"x-gzip", b"deflate")
GZIP_OR_ZLIB = 47
RAW_DEFLATE = -15
MEMBERS = 16
CONTENT_TYPES = (
    b"application/json",
    b"application/octet-stream",
    b"application/x-www-form-urlencoded",
    b"text/json",
    b"text/plain",
)
CHARSETS = (b"utf-8", b"utf8", b"us-ascii", b"ascii")


class BodyReader:
    """Reads bodies within a time, with one timer for all: a body costs a dictionary entry, not a timer.

    Args:
        limit: bytes of a body, as sent and as unpacked.
        within_s: seconds that a body may take to arrive.
    """

    def __init__(self, limit: int, within_s: float) -> None:
        self._limit = limit
        self._within_s = within_s
        self._since: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, headers: RequestHeaders, receive: Receive) -> bytes:
        """Return what `read_body` does. Raises as it does, and TooSlow when the time is up."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._within_s, self._end_late_ones, loop)
        try:
            return await read_body(headers, receive, self._limit)
        except asyncio.CancelledError:
            if task in self._late and task.uncancel() == 0:
                raise TooSlow(f"the body was not complete after {self._within_s:g} s") from None
            raise
        finally:
            del self._since[task]
            self._late.discard(task)

    def _end_late_ones(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for task, since in self._since.items():
            if since + self._within_s > loop.time():
                self._timer = loop.call_at(since + self._within_s, self._end_late_ones, loop)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()


class UnsupportedMedia(BadRequest):
    """The body has a type or an encoding that no route here reads."""


class TooSlow(BadRequest):
    """The body did not arrive within the time that a request may take."""


class ClientLeft(Exception):
    """The client closed the connection before its body was complete; nobody waits for a reply."""


async def read_body(headers: RequestHeaders, receive: Receive, limit: int) -> bytes:
    """Return the body, unpacked.

    Raises:
        TooLarge: beyond `limit` bytes as sent or as unpacked.
        UnsupportedMedia: a content type or encoding that is not read here.
        BadRequest: the compressed data are broken.
        ClientLeft: the connection closed.
    """
    check_head(headers, limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] != "http.request":
        raise ClientLeft
    if message.get("more_body"):
        body = await _read_rest(body, receive, limit)
    return unpacked(headers, body, limit)


def check_head(headers: RequestHeaders, limit: int) -> None:
    """Raise TooLarge or UnsupportedMedia for a body that its headers say is not to be read."""
    length = headers.content_length
    if length is not None and length.isdigit() and int(length[:20]) > limit:
        raise _too_large(limit)
    if headers.content_type is not None and headers.content_type != JSON_TYPE:
        _check_type(headers.content_type)


def unpacked(headers: RequestHeaders, body: bytes, limit: int) -> bytes:
    """Return a body as its sender had it before it was compressed. Raises as `read_body`."""
    if len(body) > limit:
        raise _too_large(limit)
    if headers.content_encoding is not None:
        encoding = headers.content_encoding.strip().lower()
        if encoding and encoding != b"identity":
            return unpack(body, encoding, limit)
    return body


async def _read_rest(first: bytes, receive: Receive, limit: int) -> bytes:
    parts, total, more = [first], len(first), True
    while more and total <= limit:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeft
        parts.append(message.get("body", b""))
        total += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)


def unpack(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Return a gzip or deflate body unpacked, never growing beyond `limit` bytes.

    Raises:
        UnsupportedMedia: another encoding.
        BadRequest: broken, cut or trailing data.
        TooLarge: beyond the limit.
    """
    if encoding not in ENCODINGS:
        raise UnsupportedMedia("Content-Encoding must be gzip, deflate or identity")
    try:
        return _inflate(body, GZIP_OR_ZLIB, limit)
    except zlib.error:
        pass
    if encoding == b"deflate":
        try:
            return _inflate(body, RAW_DEFLATE, limit)
        except zlib.error:
            pass
    raise BadRequest(f"the body is not {encoding.decode()} data")


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    for _ in range(MEMBERS):
        machine = zlib.decompressobj(window)
        parts.append(machine.decompress(body, limit + 1 - total))
        total += len(parts[-1])
        if total > limit:
            raise _too_large(limit)
        if not machine.eof:
            raise BadRequest("the compressed body is cut short")
        body = machine.unused_data
        if not body:
            return b"".join(parts)
        if not body.startswith(GZIP):
            raise BadRequest("bytes follow the compressed body")
    raise BadRequest(f"the compressed body has more than {MEMBERS} members")


def _check_type(value: bytes) -> None:
    for one in value.split(b","):  # a header that was given twice reaches us joined
        _check_one_type(one)


def _check_one_type(value: bytes) -> None:
    kind, _, more = value.partition(b";")
    kind = kind.strip().lower()
    if more:
        _check_charset(more)
    if kind and kind not in CONTENT_TYPES and not kind.endswith(b"+json"):
        raise UnsupportedMedia("Content-Type must be application/json or application/octet-stream")


def _check_charset(parameters: bytes) -> None:
    for parameter in parameters.lower().split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip(b" \t\"'") not in CHARSETS:
            raise UnsupportedMedia("the charset must be utf-8")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes")
