"""The two wire forms as a client sees them: bytes out, one answer back. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

Protocol = Literal["v1", "oip"]
PROTOCOLS: tuple[Protocol, ...] = ("v1", "oip")


@dataclass(frozen=True)
class Answer:
    """What one response said of one text; None where it did not say."""

    label: str
    confidence: float | None = None
    variant: str | None = None
    escalated: bool | None = None
    degraded: bool | None = None
    policy_version: str | None = None


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
    """Return the answer in the body of a 200, or None when the body is not one."""
    try:
        value = json.loads(raw)
        return _from_v1(value) if protocol == "v1" else _from_oip(value)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _from_v1(value: Any) -> Answer:
    first = value["outputs"][0]
    return Answer(
        label=str(first["label"]),
        confidence=_float(first.get("confidence")),
        variant=first.get("variant"),
        escalated=first.get("escalated"),
        degraded=first.get("degraded"),
        policy_version=value.get("policy_version"),
    )


def _from_oip(value: Any) -> Answer:
    found = {output["name"]: output["data"][0] for output in value["outputs"]}
    said = value.get("parameters") or {}
    return Answer(
        label=str(found["label"]),
        confidence=_float(found.get("confidence")),
        variant=found.get("variant"),
        escalated=found.get("escalated"),
        degraded=found.get("degraded", said.get("degraded")),
        policy_version=said.get("policy_version"),
    )


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
