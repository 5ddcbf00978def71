"""Errors to gRPC's status codes, once."""

from __future__ import annotations

import math

import grpc

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

Trailer = tuple[tuple[str, str], ...]

_CODES: tuple[tuple[type[RequestError], grpc.StatusCode], ...] = (
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (TooLarge, grpc.StatusCode.INVALID_ARGUMENT),
    (Unauthorized, grpc.StatusCode.UNAUTHENTICATED),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (UnknownModel, grpc.StatusCode.NOT_FOUND),
    (LimitReached, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NotReady, grpc.StatusCode.UNAVAILABLE),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
)


def code_of(problem: RequestError) -> grpc.StatusCode:
    """Return the status code of a problem."""
    for kind, code in _CODES:
        if isinstance(problem, kind):
            return code
    return grpc.StatusCode.INTERNAL


def retry_trailer(problem: RequestError) -> Trailer:
    """Return the trailing metadata that say when to try again; empty where that would not help.

    `grpc-retry-pushback-ms` is what gRPC's own retry policies obey (gRFC A6); `retry-after` is HTTP's.
    """
    if isinstance(problem, Overloaded | LimitReached):
        seconds = max(1.0, problem.retry_after_s)
    elif isinstance(problem, NotReady):
        seconds = 1.0
    else:
        return ()
    return (("grpc-retry-pushback-ms", str(round(seconds * 1e3))), ("retry-after", str(math.ceil(seconds))))
