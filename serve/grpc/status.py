"""What clients of gRPC are told of a problem: the status code, and when to try again."""

from __future__ import annotations

import math

import grpc

from contract.errors import RequestError
from serve.wire.errors import grpc_code_of, retry_after_s

Trailer = tuple[tuple[str, str], ...]


def code_of(problem: RequestError) -> grpc.StatusCode:
    """Return the status code of a problem."""
    return grpc.StatusCode[grpc_code_of(problem)]


def retry_trailer(problem: RequestError) -> Trailer:
    """Return the trailing metadata that say when to try again; empty where that would not help.

    `grpc-retry-pushback-ms` is what gRPC's own retry policies obey (gRFC A6); `retry-after` is HTTP's.
    """
    seconds = retry_after_s(problem)
    if seconds is None:
        return ()
    return (("grpc-retry-pushback-ms", str(round(seconds * 1e3))), ("retry-after", str(math.ceil(seconds))))
