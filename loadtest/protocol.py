"""The two wire forms as a client sees them: bytes out, one answer back. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from tables.labels import label_name

Protocol = Literal["v1", "oip"]
REFUSAL_LENGTH = 200
PROTOCOLS: tuple[Protocol, ...] = ("v1", "oip")


@dataclass(frozen=True)
class Answer:
    """What one response said of one text; None where it did not say, of the label where nobody answers."""

    label: str | None
    confidence: float | None = None
    variant: str | None = None
    escalated: bool | None = None
    degraded: bool | None = None
    policy_version: str | None = None
    abstained: bool | None = None


def path(protocol: Protocol, model: str) -> str:
    """Return the path that requests for a model go to."""
    return "/v1/classify" if protocol == "v1" else f"/v2/models/{quote(model, safe='')}/infer"


def body(protocol: Protocol, model: str, text: str) -> bytes:
    """Return the JSON body that asks for the label of one text."""
    value: dict[str, Any]
    if protocol == "v1":
        value = {"inputs": text, "model": model}
    else:
        value = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def read_answer(protocol: Protocol, raw: bytes) -> Answer | None:
    """Return the answer in the body of a 200, or None when the body is not one.

    A label is spelled as in data. What another server says in another type than ours is not kept.
    """
    try:
        value = json.loads(raw)
        return _from_v1(value) if protocol == "v1" else _from_oip(value)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def read_refusal(raw: bytes) -> str | None:
    """Return what a reply that is no answer says, in its error form or as it is; None where it is empty."""
    try:
        said = json.loads(raw)["error"]
        told = said if isinstance(said, str) else said["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        told = raw[: 4 * REFUSAL_LENGTH].decode("utf-8", "replace")
    words = " ".join(str(told).encode(errors="replace").decode().split())
    return words[:REFUSAL_LENGTH] or None


def _from_v1(value: Any) -> Answer:
    first = value["outputs"][0]
    abstained = _flag(first.get("abstained"))
    return Answer(
        label=None if abstained else _label(first["label"]),
        confidence=_float(first.get("confidence")),
        variant=_text(first.get("variant")),
        escalated=_flag(first.get("escalated")),
        degraded=_flag(first.get("degraded")),
        policy_version=_text(value.get("policy_version")),
        abstained=abstained,
    )


def _from_oip(value: Any) -> Answer:
    found = {output["name"]: output["data"][0] for output in value["outputs"]}
    said = value.get("parameters") or {}
    abstained = _flag(found.get("abstained"))
    return Answer(
        label=None if abstained else _label(found["label"]),
        confidence=_float(found.get("confidence")),
        variant=_text(found.get("variant")),
        escalated=_flag(found.get("escalated")),
        degraded=_flag(found.get("degraded", said.get("degraded"))),
        policy_version=_text(said.get("policy_version")),
        abstained=abstained,
    )


def _label(value: Any) -> str:
    """Return the name of a label. Raises ValueError where there is none."""
    name = label_name(value)
    if name is None:
        raise ValueError("no label")
    return name


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    return value.encode(errors="replace").decode() if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
