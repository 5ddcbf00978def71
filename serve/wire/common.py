"""What all wire forms share: a reply, and checks on parsed JSON that name the field they refuse."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

import orjson

from contract.errors import BadRequest, TooLarge
from serve.settings.limits import RequestLimits
from serve.types.priority import DEFAULT_PRIORITY, level_of

JSON_TYPE = b"application/json"
BINARY_TYPE = b"application/octet-stream"
MAX_PRIORITY = (1 << 64) - 1
"""The protocol's own: an unsigned integer of 64 bits."""
MAX_STICKY_KEY = 256
GZIP = b"\x1f\x8b"


@dataclass(slots=True)
class Reply:
    """One HTTP answer, content-length left to the server edge."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds. Raises BadRequest."""
    if not body:
        raise BadRequest("the body is empty; it must be a JSON object")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        if body.startswith(codecs.BOM_UTF8):
            return parse_object(body[len(codecs.BOM_UTF8) :])
        raise BadRequest(_what_is_wrong(body, problem)) from None
    if type(value) is not dict:
        raise BadRequest("the body must be a JSON object")
    return value


def _what_is_wrong(body: bytes, problem: orjson.JSONDecodeError) -> str:
    """Return why a body is no JSON, in words that name the remedy where there is one."""
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the body is not JSON in UTF-8, but UTF-16"
    if body.startswith(GZIP):
        return "the body is gzip data: say so with Content-Encoding: gzip"
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return f"the body is not JSON in UTF-8: byte 0x{body[wrong.start]:02x} at {wrong.start}"
    return f"the body is not JSON: {str(problem)[:120]}"


def check_texts(texts: list[Any], field: str, limits: RequestLimits) -> list[str]:
    """Return `texts` once every element is a string of bearable length. Raises BadRequest, TooLarge."""
    if len(texts) > limits.max_texts:
        raise TooLarge(f"{field} holds {len(texts)} texts; at most {limits.max_texts} in one request")
    longest = limits.max_characters
    for position, text in enumerate(texts):
        if type(text) is not str:
            raise BadRequest(f"{field}[{position}] must be a string")
        if len(text) > longest:
            raise TooLarge(f"{field}[{position}] has {len(text)} characters; at most {longest}")
    return texts


def check_priority(value: Any, field: str) -> int:
    """Return the level of a priority: 0 is the default, 1 the highest. Raises BadRequest."""
    if type(value) is not int or not 0 <= value <= MAX_PRIORITY:
        raise BadRequest(f"{field} must be an integer of 0 (the default), 1 (the highest) or more")
    return level_of(value)


def priority_of(header: bytes | None) -> int:
    """Return the level that the header x-sluice-priority asks for. Raises BadRequest."""
    if header is None:
        return DEFAULT_PRIORITY
    text = header.strip()
    return check_priority(int(text) if text.isdigit() and len(text) <= 20 else None, "x-sluice-priority")


def check_sticky_key(value: Any, field: str) -> bytes:
    """Return a sticky key from a JSON value, or from a header as it came. Raises BadRequest."""
    if not isinstance(value, str | bytes) or not 1 <= len(value) <= MAX_STICKY_KEY:
        raise BadRequest(f"{field} must be a text of 1 to {MAX_STICKY_KEY} characters")
    return value.encode() if isinstance(value, str) else value


def check_number(value: Any, field: str) -> float:
    """Return a JSON number as a float. Raises BadRequest."""
    if type(value) is not int and type(value) is not float:
        raise BadRequest(f"{field} must be a number")
    return float(value)
