"""What the two forms of decision endpoints have in common: fields of our own, what is passed on, replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from contract.errors import BadRequest
from serve.wire.common import check_number, check_sticky_key
from serve.wire.decisions.asked import Asked, InvalidRequest

OWN_FIELDS = ("deadline_ms", "sticky_key")
"""What this gateway knows beyond the form; it is never passed on."""


def own_fields(raw: Mapping[str, Any]) -> tuple[float | None, bytes]:
    """Return the timeout in seconds and the sticky key of a body. Raises InvalidRequest."""
    timeout_s, sticky_key = None, b""
    try:
        if (deadline_ms := raw.get("deadline_ms")) is not None:
            timeout_s = check_number(deadline_ms, "deadline_ms") / 1e3
            if timeout_s <= 0:
                raise InvalidRequest("deadline_ms must be above 0", "deadline_ms")
        if (given := raw.get("sticky_key")) is not None:
            sticky_key = check_sticky_key(given, "sticky_key")
    except InvalidRequest:
        raise
    except BadRequest as problem:
        raise InvalidRequest(problem.message, problem.message.partition(" ")[0]) from None
    return timeout_s, sticky_key


def asks_for_own(raw: Mapping[str, Any]) -> bool:
    """Return whether a body has fields of our own."""
    return any(name in raw for name in OWN_FIELDS)


def body_with(asked: Asked, questions: Any) -> bytes:
    """Return the body that asks these questions, with all else that was sent but our own fields.

    Raises:
        InvalidRequest: something in it is nested too deeply to be written again.
    """
    raw = {name: value for name, value in asked.raw.items() if name not in OWN_FIELDS}
    raw["questions"] = questions
    return _written(raw)


def reply_with(
    asked: Asked, answers: Any, usage: Mapping[str, Any], extra: Mapping[str, Any] | None
) -> bytes:
    """Return the body of a reply; `extra` is what only this gateway tells."""
    told: dict[str, Any] = {"answers": answers, "model": asked.model, "usage": usage}
    if extra is not None:
        told["sluice"] = extra
    return orjson.dumps(told)


def told_in(reply: bytes) -> tuple[Any, Mapping[str, Any] | None]:
    """Return the answers in a reply, None where it is no such reply, and its usage."""
    try:
        value = orjson.loads(reply)
    except orjson.JSONDecodeError:
        return None, None
    if type(value) is not dict:
        return None, None
    usage = value.get("usage")
    return value.get("answers"), usage if type(usage) is dict else None


def all_objects(answers: Sequence[Any]) -> bool:
    """Return whether every answer is an object."""
    return all(type(answer) is dict for answer in answers)


def _written(raw: Mapping[str, Any]) -> bytes:
    """Return a body as JSON. Raises InvalidRequest where it is nested too deeply."""
    try:
        return orjson.dumps(raw)
    except orjson.JSONEncodeError:
        for name, value in raw.items():
            try:
                orjson.dumps({name: value})
            except orjson.JSONEncodeError:
                where = name[:80]
                raise InvalidRequest(f"{where} is nested too deeply", where) from None
        raise
