"""The Open Inference Protocol, version 2: tensors in JSON, with the binary extension beside (oip_binary)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from contract.errors import BadRequest, TooLarge
from serve.settings.limits import RequestLimits
from serve.types.messages import CASCADE, ClassifyRequest, ClassifyResult, ModelInfo
from serve.types.priority import DEFAULT_PRIORITY
from serve.wire import oip_binary
from serve.wire.common import (
    BINARY_TYPE,
    Reply,
    check_number,
    check_priority,
    check_sticky_key,
    check_texts,
    parse_object,
)

INPUT = "text"
VERSION = "1"
HEADER_LENGTH = b"inference-header-content-length"

CASCADE_OUTPUTS = ("label", "confidence", "variant", "escalated", "degraded")
ABSTAINED = "abstained"
"""Output of a cascade whose policy leaves some texts to a person; others offer it on request, all false."""
VARIANT_OUTPUTS = (*CASCADE_OUTPUTS, "probabilities")
CLASSIFIED = "probabilities"
DATATYPES = {
    "label": "BYTES",
    "confidence": "FP32",
    "variant": "BYTES",
    "escalated": "BOOL",
    "degraded": "BOOL",
    "abstained": "BOOL",
    "probabilities": "FP32",
}


@dataclass(frozen=True, slots=True)
class InferCall:
    """A parsed infer request: what to answer, and in which form.

    Attributes:
        request: for the data plane.
        id: to be echoed; None where the client gave none.
        outputs: (name, binary) in the order asked for.
        top: classes that `probabilities` lists for each text in place of the bare numbers; 0: all numbers.
        whole: whether the client named no outputs, and so wants whatever there is.
    """

    request: ClassifyRequest
    id: str | None
    outputs: tuple[tuple[str, bool], ...]
    top: int = 0
    whole: bool = False


def parse(
    body: bytes,
    header_length: bytes | None,
    model: str,
    limits: RequestLimits,
    arrived_at: float,
    priority: int = DEFAULT_PRIORITY,
    caller: str = "",
    local: str = "",
) -> InferCall:
    """Read the body of POST /v2/models/M/infer.

    Args:
        body: the whole body, decompressed.
        header_length: value of Inference-Header-Content-Length; None where all is JSON.
        model: a served name, as asked.
        limits: caps.
        arrived_at: clock second of arrival.
        priority: level that the headers ask for; the parameter `priority` comes before it.
        caller: name of the key that came with it.
        local: the model's own name in its family; empty: `model` is that.

    Raises:
        BadRequest: anything against the protocol; names the field.
        TooLarge: too many texts, or too long a text.
    """
    head, tail = oip_binary.split(body, header_length)
    return read(parse_object(head), tail, model, limits, arrived_at, priority, caller, local)


def read(
    value: dict[str, Any],
    tail: bytes,
    model: str,
    limits: RequestLimits,
    arrived_at: float,
    priority: int = DEFAULT_PRIORITY,
    caller: str = "",
    local: str = "",
) -> InferCall:
    """Read an infer request from its JSON values and its binary tensor, `tail`; as `parse`."""
    identity = value.get("id")
    if identity is not None and type(identity) is not str:
        raise BadRequest("id must be a string")
    parameters = _parameters(value, "parameters")
    texts = _texts(value.get("inputs"), tail, limits)
    outputs, top = _outputs(value.get("outputs"), parameters, local or model)
    timeout_s = None
    if (timeout := parameters.get("timeout")) is not None:
        timeout_s = check_number(timeout, "parameters.timeout") / 1e6
        if timeout_s < 0:
            raise BadRequest("parameters.timeout must be 0 (none) or more microseconds")
    if (asked := parameters.get("priority")) is not None:
        priority = check_priority(asked, "parameters.priority")
    request = ClassifyRequest(model, texts, timeout_s or None, arrived_at, caller, priority)
    if (sticky_key := parameters.get("sticky_key")) is not None:
        request.sticky_key = check_sticky_key(sticky_key, "parameters.sticky_key")
    return InferCall(request, identity or None, outputs, top, not value.get("outputs"))


def render(call: InferCall, result: ClassifyResult) -> Reply:
    """Return the reply: JSON, or JSON and binary tensors where the client asked for those."""
    tensors: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, binary, datatype, shape, values in tensors_of(call, result):
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if binary:
            raw.append(oip_binary.dump(values, datatype))
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = values
        tensors.append(tensor)
    value: dict[str, Any] = {
        "model_name": call.request.asked or result.model,
        "model_version": VERSION,
    }
    if call.id is not None:
        value["id"] = call.id
    if result.policy_version is not None:
        value["parameters"] = {"policy_version": result.policy_version}
        if result.gear:
            value["parameters"]["gear"] = result.gear
    value["outputs"] = tensors
    head = orjson.dumps(value)
    if not raw:
        return Reply(head)
    return Reply(
        b"".join((head, *raw)),
        content_type=BINARY_TYPE,
        headers=((HEADER_LENGTH, b"%d" % len(head)),),
    )


def tensors_of(
    call: InferCall, result: ClassifyResult
) -> Iterator[tuple[str, bool, str, list[int], list[Any]]]:
    """Yield (name, binary, datatype, shape, values in one row) of each output that was asked for."""
    for name, binary in call.outputs:
        if call.top and name == CLASSIFIED:
            values, shape = _top_classes(result, call.top)
            yield name, binary, "BYTES", shape, values
        else:
            values, shape = _values(result, name)
            yield name, binary, DATATYPES[name], shape, values
    if call.whole and result.abstained:
        values, shape = _values(result, ABSTAINED)
        yield ABSTAINED, call.outputs[0][1], DATATYPES[ABSTAINED], shape, values


def outputs_of(model: str, *, abstains: bool = False) -> tuple[str, ...]:
    """Return the outputs that a model offers, by its own name in its family."""
    if model != CASCADE:
        return VARIANT_OUTPUTS
    return (*CASCADE_OUTPUTS, ABSTAINED) if abstains else CASCADE_OUTPUTS


def model_metadata(info: ModelInfo) -> dict[str, Any]:
    """Return the metadata of GET /v2/models/M."""
    return {
        "name": info.name,
        "versions": [VERSION],
        "platform": f"sluicegate_{info.kind}",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {
                "name": name,
                "datatype": DATATYPES[name],
                "shape": [-1, len(info.labels)] if name == "probabilities" else [-1],
            }
            for name in outputs_of(info.local or info.name, abstains=info.abstains)
        ],
        "parameters": {"content": info.content_sha256, "labels": list(info.labels)},
    }


def _parameters(holder: dict[str, Any], field: str) -> dict[str, Any]:
    value = holder.get("parameters")
    if value is None:
        return {}
    if type(value) is not dict:
        raise BadRequest(f"{field} must be an object")
    return value


def _texts(inputs: Any, tail: bytes, limits: RequestLimits) -> list[str]:
    if type(inputs) is not list or len(inputs) != 1 or type(inputs[0]) is not dict:
        raise BadRequest(
            f"inputs must be a list of one tensor, {INPUT!r}; several texts are one tensor of shape [N]"
        )
    tensor = inputs[0]
    if tensor.get("name") != INPUT:
        raise BadRequest(f"the input tensor is named {INPUT!r}, not {str(tensor.get('name'))[:60]!r}")
    if tensor.get("datatype") != "BYTES":
        raise BadRequest(f"the datatype of {INPUT!r} is BYTES, not {str(tensor.get('datatype'))[:60]!r}")
    count = _count(tensor.get("shape"), limits)
    own = _parameters(tensor, "inputs[0].parameters")
    size = own.get("binary_data_size")
    if size is None:
        if "shared_memory_region" in own:
            raise BadRequest("shared memory is not offered: send the tensor in the body, as JSON or binary")
        if tail:
            raise BadRequest("bytes follow the JSON, but no tensor has a binary_data_size")
        texts = _flat(tensor.get("data"))
        if len(texts) != count:
            raise BadRequest(f"the shape asks for {count} elements, data has {len(texts)}")
        texts = check_texts(texts, "data", limits)
        return _decoded(texts) if own.get("content_type") == "base64" else texts
    if "data" in tensor:
        raise BadRequest("a tensor has data or binary_data_size, not both")
    if type(size) is not int or size != len(tail):
        raise BadRequest(f"binary_data_size does not fit the {len(tail)} bytes after the JSON")
    return oip_binary.load_texts(tail, count, limits)


def _decoded(texts: list[str]) -> list[str]:
    """Return texts that came as base64, as MLServer's codec sends them; what is no text inside stays packed.

    Images are classified by their base64, and are no UTF-8.
    """
    found = []
    for position, text in enumerate(texts):
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError:
            raise BadRequest(f"data[{position}] is not base64, as its content_type says") from None
        try:
            found.append(raw.decode())
        except UnicodeDecodeError:
            found.append(text)
    return found


def _count(shape: Any, limits: RequestLimits) -> int:
    if type(shape) is not list or len(shape) not in (1, 2) or any(type(n) is not int for n in shape):
        raise BadRequest("shape must be [N] or [N, 1]")
    if len(shape) == 2 and shape[1] != 1:
        raise BadRequest("shape must be [N] or [N, 1]")
    count: int = shape[0]
    if count < 1:
        raise BadRequest("shape must hold one element or more")
    if count > limits.max_texts:
        raise TooLarge(f"the shape asks for {count} texts; at most {limits.max_texts} in one request")
    return count


def _flat(data: Any) -> list[Any]:
    if type(data) is not list:
        raise BadRequest("data must be a list")
    if any(type(element) is list for element in data):
        if any(type(element) is not list or len(element) != 1 for element in data):
            raise BadRequest("data must be a flat list, or one list of one element per text")
        return [element[0] for element in data]
    return data


def _outputs(asked: Any, parameters: dict[str, Any], model: str) -> tuple[tuple[tuple[str, bool], ...], int]:
    """Return (name, binary) of each output, and how many classes `probabilities` lists (0: all numbers)."""
    offered = outputs_of(model)
    binary = _flag(parameters, "binary_data_output", default=False)
    if asked is None or asked == []:
        return tuple((name, binary) for name in offered), 0
    if type(asked) is not list or any(type(entry) is not dict for entry in asked):
        raise BadRequest("outputs must be a list of objects")
    found: dict[str, bool] = {}
    top = 0
    offered = outputs_of(model, abstains=True)
    for entry in asked:
        name = entry.get("name")
        if type(name) is not str or name not in offered:
            raise BadRequest(f"outputs must name one of: {', '.join(offered)}")
        if name in found:
            raise BadRequest(f"output {name!r} is asked for twice")
        own = _parameters(entry, "parameters of an output")
        if own.get("shared_memory_region"):
            raise BadRequest("outputs in shared memory are not offered: they come in the body")
        if (count := own.get("classification")) is not None:
            top = _class_count(name, count) or top
        found[name] = _flag(own, "binary_data", default=binary)
    return tuple(found.items()), top


def _class_count(name: str, count: Any) -> int:
    if type(count) is not int or count < 0:
        raise BadRequest("classification must be a number of classes")
    if count and name != CLASSIFIED:
        raise BadRequest(
            f"classification is offered for the output {CLASSIFIED!r}, which variants by name have; "
            "for the cascade, POST /v1/classify with top_k lists classes"
        )
    return count


def _top_classes(result: ClassifyResult, top: int) -> tuple[list[str], list[int]]:
    """Return "probability:index:label" of the surest classes, [N, top], as Triton writes them."""
    top = min(top, len(result.labels))
    rows = result.probabilities()
    surest = (-rows).argsort(axis=1, kind="stable")[:, :top]
    values = [
        f"{row[index]:f}:{index}:{result.labels[index]}"
        for row, found in zip(rows, surest.tolist(), strict=True)
        for index in found
    ]
    return values, [len(rows), top]


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise BadRequest(f"{name} must be true or false")
    return value


def _values(result: ClassifyResult, name: str) -> tuple[list[Any], list[int]]:
    n = len(result.predicted)
    if name == "label":
        if result.abstained:
            return [result.label(row) for row in range(n)], [n]
        return [result.labels[index] for index in result.predicted], [n]
    if name == ABSTAINED:
        return list(result.abstained) or [False] * n, [n]
    if name == "probabilities":
        return result.probabilities().ravel().tolist(), [n, len(result.labels)]
    values: list[Any] = getattr(result, name)
    return values, [n]
