"""Protobuf to the protocol's own values and back: what is read and refused is what JSON over HTTP is."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from contract.errors import BadRequest
from serve.grpc.messages import CONFIG_TYPES, message
from serve.settings.limits import RequestLimits
from serve.types.messages import ClassifyResult, ModelInfo
from serve.types.priority import DEFAULT_PRIORITY
from serve.wire import oip, oip_binary, oip_models

INFER_REQUEST = message("ModelInferRequest")
INFER_RESPONSE = message("ModelInferResponse")
_CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "BOOL": "bool_contents"}


def parse(kind: Any, raw: bytes) -> Any:
    """Return the message of that class that the bytes hold. Raises BadRequest."""
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise BadRequest(f"the message is no {kind.DESCRIPTOR.name}") from None


def infer_call(
    request: Any,
    limits: RequestLimits,
    arrived_at: float,
    remaining_s: float | None,
    priority: int = DEFAULT_PRIORITY,
    caller: str = "",
    local: str = "",
) -> oip.InferCall:
    """Return the call that a ModelInferRequest asks for.

    Args:
        request: as sent.
        limits: caps.
        arrived_at: clock second of arrival.
        remaining_s: what gRPC's own deadline leaves, if the client set one.
        priority: level that the metadata ask for.
        caller: name of the key that came with it.
        local: the model's own name in its family; empty: `model_name` is that.

    Raises:
        BadRequest, TooLarge: as over HTTP.
    """
    raw = request.raw_input_contents
    value = {
        "id": request.id,
        "parameters": _parameters(request.parameters),
        "inputs": [_tensor(tensor, position, raw) for position, tensor in enumerate(request.inputs)],
        "outputs": [
            {"name": output.name, "parameters": _parameters(output.parameters)} for output in request.outputs
        ],
    }
    if len(raw) > 1:
        raise BadRequest(f"raw_input_contents has {len(raw)} entries for one tensor")
    tail = raw[0] if raw else b""
    call = oip.read(value, tail, request.model_name, limits, arrived_at, priority, caller, local)
    asked = call.request
    if remaining_s is not None and (asked.timeout_s is None or remaining_s < asked.timeout_s):
        asked.timeout_s = remaining_s
    return call


def infer_response(call: oip.InferCall, result: ClassifyResult, *, raw: bool) -> bytes:
    """Return the ModelInferResponse, its tensors raw as Triton sends them or in contents."""
    response = INFER_RESPONSE(
        model_name=call.request.asked or result.model, model_version=oip.VERSION, id=call.id or ""
    )
    if result.policy_version is not None:
        response.parameters["policy_version"].string_param = result.policy_version
    if result.gear:
        response.parameters["gear"].string_param = result.gear
    for name, _, datatype, shape, values in oip.tensors_of(call, result):
        output = response.outputs.add(name=name, datatype=datatype, shape=shape)
        if raw:
            response.raw_output_contents.append(oip_binary.dump(values, datatype))
        else:
            sent_as = [text.encode() for text in values] if datatype == "BYTES" else values
            getattr(output.contents, _CONTENTS[datatype]).extend(sent_as)
    sent: bytes = response.SerializeToString()
    return sent


def metadata_response(info: ModelInfo) -> Any:
    """Return the ModelMetadataResponse of a model."""
    told = oip.model_metadata(info)
    fields = ("name", "versions", "platform", "inputs", "outputs")
    return message("ModelMetadataResponse")(**{name: told[name] for name in fields})


def config_response(info: ModelInfo, max_texts: int) -> Any:
    """Return the ModelConfigResponse of a model."""
    told = oip_models.model_config(info, max_texts)
    for tensor in (*told["input"], *told["output"]):
        tensor["data_type"] = CONFIG_TYPES[tensor["data_type"]]
    fields = ("name", "platform", "backend", "max_batch_size", "input", "output")
    return message("ModelConfigResponse")(config={name: told[name] for name in fields})


def statistics_response(told: dict[str, Any]) -> Any:
    """Return the ModelStatisticsResponse of what `oip_models.statistics` tells."""
    entries = [
        {name: value for name, value in entry.items() if name != "batch_stats"}
        for entry in told["model_stats"]
    ]
    return message("ModelStatisticsResponse")(model_stats=entries)


def _parameters(given: Any) -> dict[str, Any]:
    found = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            found[name] = getattr(parameter, choice)
    return found


def _tensor(tensor: Any, position: int, raw: Any) -> dict[str, Any]:
    """Return an input tensor as JSON would hold it."""
    value: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "parameters": _parameters(tensor.parameters),
    }
    if position < len(raw):
        if tensor.HasField("contents"):
            raise BadRequest("a tensor has contents or raw_input_contents, not both")
        value["parameters"]["binary_data_size"] = len(raw[position])
    else:
        value["parameters"].pop("binary_data_size", None)
        value["data"] = [_text(text, index) for index, text in enumerate(tensor.contents.bytes_contents)]
    return value


def _text(raw: bytes, index: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"element {index} of the tensor is not UTF-8") from None
