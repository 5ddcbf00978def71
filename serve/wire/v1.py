"""The simple JSON form: POST /v1/classify."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import orjson

from contract.errors import BadRequest
from serve.settings.limits import RequestLimits
from serve.types.messages import CASCADE, ClassifyRequest, ClassifyResult
from serve.types.priority import DEFAULT_PRIORITY
from serve.wire.common import Reply, check_number, check_sticky_key, check_texts, parse_object

FIELDS = frozenset({"inputs", "model", "top_k", "deadline_ms", "sticky_key"})


@dataclass(slots=True)
class V1Call:
    """A parsed request, and how many classes each answer shall list."""

    request: ClassifyRequest
    top_k: int


def parse(
    body: bytes,
    limits: RequestLimits,
    arrived_at: float,
    priority: int = DEFAULT_PRIORITY,
    caller: str = "",
) -> V1Call:
    """Read the body of POST /v1/classify; its headers gave priority and caller.

    Raises:
        BadRequest: not JSON, an unknown or missing field, a wrong type or value; names the field.
        TooLarge: too many texts, or too long a text.
    """
    value = parse_object(body)
    if not FIELDS.issuperset(value):
        stranger = next(name for name in value if name not in FIELDS)
        raise BadRequest(f"unknown field {stranger[:60]!r}; there are: {', '.join(sorted(FIELDS))}")
    inputs = value.get("inputs")
    if type(inputs) is str:
        texts = check_texts([inputs], "inputs", limits)
    elif type(inputs) is list and inputs:
        texts = check_texts(inputs, "inputs", limits)
    else:
        raise BadRequest("inputs must be a text or a list of one or more texts")
    model = CASCADE if (model := value.get("model")) is None else model
    if type(model) is not str:
        raise BadRequest("model must be a string")
    top_k = 1 if (top_k := value.get("top_k")) is None else top_k
    if type(top_k) is not int or top_k < 1:
        raise BadRequest("top_k must be an integer of 1 or more")
    timeout_s = None
    if (deadline_ms := value.get("deadline_ms")) is not None:
        timeout_s = check_number(deadline_ms, "deadline_ms") / 1e3
        if timeout_s <= 0:
            raise BadRequest("deadline_ms must be above 0")
    request = ClassifyRequest(model, texts, timeout_s, arrived_at, caller, priority)
    if (sticky_key := value.get("sticky_key")) is not None:
        request.sticky_key = check_sticky_key(sticky_key, "sticky_key")
    return V1Call(request, top_k)


def render(result: ClassifyResult, top_k: int, asked: str = "") -> Reply:
    """Return the reply; with top_k above 1 every output lists its `top` classes, the surest first.

    `asked` is the model as the client wrote it, where that is not the result's. Where nobody answers the
    label is null, and confidence and `top` are those of the last stage that looked.
    """
    model = asked or result.model
    labels = result.labels
    outputs: list[dict[str, Any]] = [
        {
            "label": labels[predicted],
            "confidence": confidence,
            "variant": variant,
            "escalated": escalated,
            "degraded": degraded,
        }
        for predicted, confidence, variant, escalated, degraded in zip(
            result.predicted,
            result.confidence,
            result.variant,
            result.escalated,
            result.degraded,
            strict=True,
        )
    ]
    for output, left in zip(outputs, result.abstained, strict=False):
        output["abstained"] = left
        if left:
            output["label"] = None
    if top_k > 1:
        for output, row in zip(outputs, result.probabilities().tolist(), strict=True):
            top = heapq.nlargest(top_k, range(len(labels)), key=row.__getitem__)
            output["top"] = [{"label": labels[i], "confidence": row[i]} for i in top]
    value = {"outputs": outputs, "model": model, "policy_version": result.policy_version}
    if result.gear:
        value["gear"] = result.gear
    return Reply(orjson.dumps(value))
