"""The headers that the gateway reads, found in one pass over what ASGI gives."""

from __future__ import annotations

from collections.abc import Iterable

READ = (
    "authorization",
    "content-length",
    "content-type",
    "content-encoding",
    "inference-header-content-length",
    "x-request-id",
    "x-sluice-priority",
    "x-sluice-sticky-key",
)
"""Names as on the wire; each is an attribute of `RequestHeaders`, with underscores."""


class RequestHeaders:
    """The values of those headers of one request, as bytes; None where it has none.

    A header that was given twice has its last value here, save that all content types are kept, joined.
    """

    __slots__ = tuple(name.replace("-", "_") for name in READ)

    authorization: bytes | None
    content_length: bytes | None
    content_type: bytes | None
    content_encoding: bytes | None
    inference_header_content_length: bytes | None
    x_request_id: bytes | None
    x_sluice_priority: bytes | None
    x_sluice_sticky_key: bytes | None

    def __init__(self) -> None:
        self.authorization = None
        self.content_length = None
        self.content_type = None
        self.content_encoding = None
        self.inference_header_content_length = None
        self.x_request_id = None
        self.x_sluice_priority = None
        self.x_sluice_sticky_key = None


_ATTRIBUTE = {name.encode(): name.replace("-", "_") for name in READ}


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> RequestHeaders:
    """Return what the gateway reads of ASGI's headers, whose names are in lower case."""
    found = RequestHeaders()
    for name, value in pairs:
        attribute = _ATTRIBUTE.get(name)
        if attribute is None:
            continue
        if attribute == "content_type" and found.content_type is not None:
            found.content_type += b"," + value
        else:
            setattr(found, attribute, value)
    return found
