"""Passes decision requests on to the endpoint that answers what no family here does."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from contract.errors import DeadlineExceeded, EnvironmentProblem, NotReady, Overloaded
from runtime.remote.cookies import no_cookies
from runtime.remote.keys import headers_of
from serve.settings.upstream import UpstreamSettings
from serve.wire.common import Reply
from serve.wire.decisions.errors import NoUsableAnswer

log = logging.getLogger(__name__)

UPSTREAM = "upstream"
"""Its name among models and variants, in metrics and headers."""

Headers = Iterable[tuple[bytes, bytes]]
Listener = Callable[[bytes, bytes, float], None]
"""Hears the body of a request that was answered, the body of the reply, and the seconds; must not raise."""

_ON = (b"openai-", b"x-stainless-")
_ON_WHOLE = frozenset({b"user-agent", b"idempotency-key", b"traceparent"})
_IDEMPOTENCY = b"idempotency-key"
_ACCOUNT = frozenset({"openai-organization", "openai-project"})
"""They say whose account is meant: the client's affair, unless the key is this gateway's."""
_BACK = ("openai-", "x-ratelimit-")
_BACK_WHOLE = frozenset({"retry-after", "x-should-retry"})
_LOOK_EVERY_S = 0.02
_OTHER_ID = b"x-sluice-upstream-request-id"
_STATUSES_END = 600
_REFUSED_KEY = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(slots=True, eq=False)
class Sent:
    """A request to pass on.

    Attributes:
        path: that follows the base URL.
        body: as it goes out.
        pairs: ASGI's headers of the client's request.
        identity: the request's id.
        timeout_s: how long the client waits, if it said; the settings' own time counts too.
        keyed: whether this gateway has keys of its own: the client's Authorization is for it then.
        caller: name of the key that asks; empty without keys.
        paid: whether it may be paid for: set once it goes out, and unset by a reply that is no answer.
    """

    path: str
    body: bytes
    pairs: Headers
    identity: bytes
    timeout_s: float | None
    keyed: bool
    caller: str = ""
    paid: bool = False


class Upstream:
    """One endpoint, asked over a pool of connections. Belongs to the event loop that first asks.

    Args:
        settings: where it is.
        listener: hears what it answered at `/decisions`.
        transport: in place of the network.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        listener: Listener | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.listener = listener
        self.usd_per_question = None if settings.usd_per_1k is None else settings.usd_per_1k / 1000
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._out = 0
        self._closing = False

    async def ask(self, sent: Sent) -> Reply:
        """Return what the endpoint answered, whatever its status.

        Raises:
            Overloaded: as many requests are out as may be.
            NotReady: it cannot be reached, or its key is not there, or it is being closed.
            DeadlineExceeded: no answer in time.
            NoUsableAnswer: one that cannot be passed on, or its refusal of this gateway's own key.
        """
        settings = self.settings
        if self._closing:
            raise NotReady("the gateway is stopping")
        if self._out >= settings.max_in_flight:
            raise Overloaded("as many requests wait for the upstream as may")
        headers, own_key = self._headers(sent)
        timeout_s = settings.timeout_s if sent.timeout_s is None else min(sent.timeout_s, settings.timeout_s)
        self._out += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._post(settings.url + sent.path, sent, headers, own_key=own_key)
        except (TimeoutError, httpx.ReadTimeout):
            raise DeadlineExceeded("the upstream did not answer in time") from None
        except httpx.HTTPError as problem:
            log.warning("the upstream cannot be asked: %s", type(problem).__name__)
            raise NotReady("the upstream cannot be reached now") from None
        finally:
            self._out -= 1
        if own_key and reply.status in _REFUSED_KEY:
            log.error("the upstream refuses this gateway's key with status %d", reply.status)
            raise NoUsableAnswer("the upstream refuses the key of this gateway")
        if reply.status == HTTPStatus.OK and self.listener is not None and sent.path == "/decisions":
            self.listener(sent.body, reply.body, time.monotonic() - began)
        return reply

    async def close(self) -> None:
        """Ask nothing more, and close the connections once what is out is answered."""
        self._closing = True
        while self._out:
            await asyncio.sleep(_LOOK_EVERY_S)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _post(
        self, url: str, sent: Sent, headers: list[tuple[bytes, bytes]], *, own_key: bool
    ) -> Reply:
        """Return the reply, its body capped. Raises NoUsableAnswer, httpx.HTTPError."""
        content = _going_out(sent)
        async with self._opened().stream("POST", url, content=content, headers=headers) as response:
            status = response.status_code
            sent.paid = status == HTTPStatus.OK
            if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
                log.error("the upstream redirects with status %d: set upstream.url to where it is", status)
                raise NoUsableAnswer("the upstream gave no usable answer")
            if not HTTPStatus.OK <= status < _STATUSES_END:
                log.error("the upstream answers with status %d, which there is not", status)
                raise NoUsableAnswer("the upstream gave no usable answer")
            parts, total = [], 0
            async for part in response.aiter_bytes():
                total += len(part)
                if total > self.settings.max_reply_bytes:
                    log.error("the upstream's reply has more than %d bytes", self.settings.max_reply_bytes)
                    raise NoUsableAnswer("the upstream gave no usable answer")
                parts.append(part)
        kind = response.headers.get("content-type", "application/json").encode()
        return Reply(b"".join(parts), status, kind, _back(response.headers, own_key=own_key))

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            limits = httpx.Limits(max_connections=self.settings.max_in_flight, keepalive_expiry=30.0)
            transport = self._transport or httpx.AsyncHTTPTransport(retries=1, limits=limits)
            timeout = httpx.Timeout(self.settings.timeout_s, connect=self.settings.connect_s)
            self._client = httpx.AsyncClient(transport=transport, timeout=timeout, cookies=no_cookies())
        return self._client

    def _headers(self, sent: Sent) -> tuple[list[tuple[bytes, bytes]], bool]:
        """Return the headers that go out, and whether a key of this gateway is among them."""
        found = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(sent.body)),
            (b"accept-encoding", b"identity"),
            (b"x-request-id", sent.identity),
        ]
        own = self._own()
        found += own
        for name, value in sent.pairs:
            shown = name == b"authorization" and not own and not sent.keyed
            if own and name == _IDEMPOTENCY:
                found.append((name, _own_idempotency(sent, value)))
            elif own and name.decode("latin-1") in _ACCOUNT:
                continue
            elif shown or name in _ON_WHOLE or name.startswith(_ON):
                found.append((name, value))
        return found, bool(own)

    def _own(self) -> list[tuple[bytes, bytes]]:
        """Return the header with this gateway's own key; none where it has no key. Raises NotReady."""
        try:
            found = headers_of(self.settings.credentials)
        except EnvironmentProblem as problem:
            log.error("the upstream's key: %s", problem.message)
            raise NotReady("the upstream's key is not there") from None
        return [(name.lower().encode(), value.encode()) for name, value in found.items()]


async def _going_out(sent: Sent) -> AsyncIterator[bytes]:
    """Yield the body; nobody takes it before there is a connection."""
    sent.paid = True
    yield sent.body


def _own_idempotency(sent: Sent, given: bytes) -> bytes:
    """Return a key of one client and one body: to the upstream all clients of this gateway are one."""
    told = hashlib.sha256(b"%d %d " % (len(sent.caller), len(given)))
    for part in (sent.caller.encode(), given, sent.path.encode(), b"\0", sent.body):
        told.update(part)
    return told.hexdigest().encode()


def _back(headers: httpx.Headers, *, own_key: bool) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of a reply that the client gets; the upstream's id under a name of its own."""
    found = [
        (name.encode(), value.encode())
        for name, value in headers.items()
        if (name in _BACK_WHOLE or name.startswith(_BACK)) and not (own_key and name in _ACCOUNT)
    ]
    if (other := headers.get("x-request-id")) is not None:
        found.append((_OTHER_ID, other.encode()))
    return tuple(found)
