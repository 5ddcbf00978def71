"""Errors to HTTP, once, for every protocol: status, outcome in the metrics, and the body {"error": ...}."""

from __future__ import annotations

import math

import orjson

from contract.errors import (
    BadRequest,
    DeadlineExceeded,
    Forbidden,
    LimitReached,
    NotReady,
    Overloaded,
    RequestError,
    TooLarge,
    Unauthorized,
    UnknownModel,
)
from contract.metrics import Outcome
from serve.wire.body import TooSlow, UnsupportedMedia
from serve.wire.common import JSON_TYPE, Reply

_STATUS: tuple[tuple[type[RequestError], int, Outcome], ...] = (
    (UnsupportedMedia, 415, "client_error"),
    (TooSlow, 408, "client_error"),
    (BadRequest, 400, "client_error"),
    (Unauthorized, 401, "client_error"),
    (Forbidden, 403, "client_error"),
    (LimitReached, 429, "client_error"),
    (UnknownModel, 404, "client_error"),
    (TooLarge, 413, "client_error"),
    (Overloaded, 429, "overloaded"),
    (NotReady, 503, "overloaded"),
    (DeadlineExceeded, 504, "deadline"),
)


def outcome_of(problem: RequestError) -> Outcome:
    """Return what the metrics call this problem."""
    return _mapped(problem)[1]


def error_reply(problem: RequestError) -> Reply:
    """Return the reply to a request that failed with `problem`."""
    status = _mapped(problem)[0]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(problem, Overloaded | LimitReached | NotReady):
        headers = ((b"retry-after", b"%d" % max(1, math.ceil(problem.retry_after_s))),)
    elif isinstance(problem, UnsupportedMedia):
        headers = ((b"accept", b"application/json"), (b"accept-encoding", b"gzip, deflate, identity"))
    elif isinstance(problem, Unauthorized):
        headers = ((b"www-authenticate", b'Bearer realm="sluicegate"'),)
    elif isinstance(problem, Forbidden):
        challenge = f'Bearer realm="sluicegate", error="insufficient_scope", scope="{problem.scope}"'
        headers = ((b"www-authenticate", challenge.encode()),)
    elif isinstance(problem, TooSlow):
        headers = ((b"connection", b"close"),)
    return plain_error(status, problem.message, headers)


def plain_error(status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Return {"error": message} with a status."""
    body = orjson.dumps({"error": message.encode("utf-8", "replace").decode()})
    return Reply(body, status, JSON_TYPE, headers)


def _mapped(problem: RequestError) -> tuple[int, Outcome]:
    for kind, status, outcome in _STATUS:
        if isinstance(problem, kind):
            return status, outcome
    return 500, "server_error"
