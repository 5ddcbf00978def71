"""The binary tensor extension of the Open Inference Protocol: little-endian tensors behind the JSON header.

No length that a client states is believed before it has been compared with the bytes that are there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from contract.errors import BadRequest, TooLarge
from serve.settings.limits import RequestLimits

PREFIX = 4
LONGEST_CHARACTER = 4


def split(body: bytes, header_length: bytes | None) -> tuple[bytes, bytes]:
    """Return the JSON part and the tensors behind it.

    Raises:
        BadRequest: the stated length is no number, or beyond the body.
    """
    if header_length is None:
        return body, b""
    if not header_length.isdigit() or len(header_length) > 18 or int(header_length) > len(body):
        raise BadRequest("Inference-Header-Content-Length does not fit the body")
    length = int(header_length)
    return body[:length], body[length:]


def load_texts(raw: bytes, count: int, limits: RequestLimits) -> list[str]:
    """Return the `count` texts of a BYTES tensor: each 4 bytes of length, then UTF-8.

    Raises:
        BadRequest: a length that leaves the tensor, bytes left over, or invalid UTF-8.
        TooLarge: a text beyond the limits.
    """
    texts: list[str] = []
    position = 0
    for index in range(count):
        start = position + PREFIX
        size = int.from_bytes(raw[position:start], "little")
        position = start + size
        if position > len(raw):
            raise BadRequest(f"element {index} of the tensor is longer than the tensor")
        if size > limits.max_characters * LONGEST_CHARACTER:
            raise TooLarge(
                f"element {index} has {size} bytes; a text has at most {limits.max_characters} characters"
            )
        try:
            text = raw[start:position].decode()
        except UnicodeDecodeError:
            raise BadRequest(f"element {index} of the tensor is not UTF-8") from None
        if len(text) > limits.max_characters:
            raise TooLarge(f"element {index} has {len(text)} characters; at most {limits.max_characters}")
        texts.append(text)
    if position != len(raw):
        raise BadRequest(f"the tensor has {len(raw) - position} bytes beyond its {count} elements")
    return texts


def dump(values: list[Any], datatype: str) -> bytes:
    """Return a tensor as bytes; datatype is BYTES (values are strings), FP32 or BOOL."""
    if datatype == "BYTES":
        return b"".join(
            len(raw).to_bytes(PREFIX, "little") + raw for raw in (value.encode() for value in values)
        )
    if datatype == "BOOL":
        return bytes(values)
    return np.asarray(values, dtype="<f4").tobytes()
