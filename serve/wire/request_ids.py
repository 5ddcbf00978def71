"""The id in every reply's `x-request-id`: the client's own where it is fit to be repeated, else a new one."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable

from serve.types.current import REQUEST_ID

HEADER = b"x-request-id"

_FIT = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""What may be repeated in a header and written to a log: no blank, no quote, nothing that ends a line."""
_prefix = secrets.token_hex(6).encode()
_count = itertools.count(1)


def request_id(given: bytes | None) -> bytes:
    """Return the id of a request whose client sent `given`, and note it for what this task logs.

    A new one is this process's random prefix and a number: as good as a random one, and far cheaper.
    """
    if given is None or _FIT.fullmatch(given) is None:
        given = b"%b-%x" % (_prefix, next(_count))
    REQUEST_ID.set(given)
    return given


def request_id_in(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the id of a request with these ASGI headers."""
    given = None
    for name, value in pairs:
        if name == HEADER:
            given = value
    return request_id(given)
