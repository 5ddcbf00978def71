"""Errors to what clients are told of them, once, for every protocol; and the body {"error": ...} of HTTP."""

from __future__ import annotations

import math
from typing import NamedTuple

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


class _Terms(NamedTuple):
    """What is told of one kind of problem: the statuses of HTTP and gRPC, and the outcome in the metrics."""

    http: int
    grpc: str
    outcome: Outcome


_TOLD: tuple[tuple[type[RequestError], _Terms], ...] = (
    (UnsupportedMedia, _Terms(415, "INVALID_ARGUMENT", "client_error")),
    (TooSlow, _Terms(408, "INVALID_ARGUMENT", "client_error")),
    (BadRequest, _Terms(400, "INVALID_ARGUMENT", "client_error")),
    (Unauthorized, _Terms(401, "UNAUTHENTICATED", "client_error")),
    (Forbidden, _Terms(403, "PERMISSION_DENIED", "client_error")),
    (LimitReached, _Terms(429, "RESOURCE_EXHAUSTED", "client_error")),
    (UnknownModel, _Terms(404, "NOT_FOUND", "client_error")),
    (TooLarge, _Terms(413, "INVALID_ARGUMENT", "client_error")),
    (Overloaded, _Terms(429, "RESOURCE_EXHAUSTED", "overloaded")),
    (NotReady, _Terms(503, "UNAVAILABLE", "overloaded")),
    (DeadlineExceeded, _Terms(504, "DEADLINE_EXCEEDED", "deadline")),
)
_OURS = _Terms(500, "INTERNAL", "server_error")


def outcome_of(problem: RequestError) -> Outcome:
    """Return what the metrics call this problem."""
    return _told(problem).outcome


def grpc_code_of(problem: RequestError) -> str:
    """Return the name of gRPC's status code for this problem."""
    return _told(problem).grpc


def retry_after_s(problem: RequestError) -> float | None:
    """Return after how many seconds to try again, 1 or more; None where that would not help."""
    if isinstance(problem, Overloaded | LimitReached | NotReady):
        return max(1.0, problem.retry_after_s)
    return None


def error_reply(problem: RequestError) -> Reply:
    """Return the reply to a request that failed with `problem`."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if (seconds := retry_after_s(problem)) is not None:
        headers = ((b"retry-after", b"%d" % math.ceil(seconds)),)
    elif isinstance(problem, UnsupportedMedia):
        headers = ((b"accept", b"application/json"), (b"accept-encoding", b"gzip, deflate, identity"))
    elif isinstance(problem, Unauthorized):
        headers = ((b"www-authenticate", b'Bearer realm="sluicegate"'),)
    elif isinstance(problem, Forbidden):
        challenge = f'Bearer realm="sluicegate", error="insufficient_scope", scope="{problem.scope}"'
        headers = ((b"www-authenticate", challenge.encode()),)
    elif isinstance(problem, TooSlow):
        headers = ((b"connection", b"close"),)
    return plain_error(_told(problem).http, problem.message, headers)


def plain_error(status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Return {"error": message} with a status."""
    body = orjson.dumps({"error": message.encode("utf-8", "replace").decode()})
    return Reply(body, status, JSON_TYPE, headers)


def _told(problem: RequestError) -> _Terms:
    return next((told for kind, told in _TOLD if isinstance(problem, kind)), _OURS)
