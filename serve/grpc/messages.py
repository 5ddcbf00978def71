"""The messages of `inference.GRPCInferenceService`, version 2, as KServe and Triton number their fields.

They are built here rather than generated, and in a pool of their own: code that was generated for the same
names, such as tritonclient's, may live in the same process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_VERSIONED = "string name = 1; string version = 2"
_TENSOR = "string name = 1; string datatype = 2; repeated int64 shape = 3"
_COUNTED = "uint64 count = 1; uint64 ns = 2"

MESSAGES: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ModelReadyRequest": _VERSIONED,
    "ModelReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3",
    "ModelMetadataRequest": _VERSIONED,
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelMetadataResponse": (
        "string name = 1; repeated string versions = 2; string platform = 3; "
        "repeated ModelMetadataResponse.TensorMetadata inputs = 4; "
        "repeated ModelMetadataResponse.TensorMetadata outputs = 5"
    ),
    "InferParameter": (
        "oneof bool bool_param = 1; oneof int64 int64_param = 2; oneof string string_param = 3; "
        "oneof double double_param = 4; oneof uint64 uint64_param = 5"
    ),
    "InferTensorContents": (
        "repeated bool bool_contents = 1; repeated int32 int_contents = 2; "
        "repeated int64 int64_contents = 3; repeated uint32 uint_contents = 4; "
        "repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6; "
        "repeated double fp64_contents = 7; repeated bytes bytes_contents = 8"
    ),
    "ModelInferRequest.InferInputTensor": (
        f"{_TENSOR}; map InferParameter parameters = 4; InferTensorContents contents = 5"
    ),
    "ModelInferRequest.InferRequestedOutputTensor": "string name = 1; map InferParameter parameters = 2",
    "ModelInferRequest": (
        "string model_name = 1; string model_version = 2; string id = 3; map InferParameter parameters = 4; "
        "repeated ModelInferRequest.InferInputTensor inputs = 5; "
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6; "
        "repeated bytes raw_input_contents = 7"
    ),
    "ModelInferResponse.InferOutputTensor": (
        f"{_TENSOR}; map InferParameter parameters = 4; InferTensorContents contents = 5"
    ),
    "ModelInferResponse": (
        "string model_name = 1; string model_version = 2; string id = 3; map InferParameter parameters = 4; "
        "repeated ModelInferResponse.InferOutputTensor outputs = 5; repeated bytes raw_output_contents = 6"
    ),
    "ModelConfigRequest": _VERSIONED,
    # Of Triton's configuration, what applies here; a type of data is an enumeration, the same on the wire.
    "ModelInput": "string name = 1; int32 data_type = 2; repeated int64 dims = 4",
    "ModelOutput": "string name = 1; int32 data_type = 2; repeated int64 dims = 3",
    "ModelConfig": (
        "string name = 1; string platform = 2; int32 max_batch_size = 4; repeated ModelInput input = 5; "
        "repeated ModelOutput output = 6; string backend = 17"
    ),
    "ModelConfigResponse": "ModelConfig config = 1",
    "ModelStatisticsRequest": _VERSIONED,
    "StatisticDuration": _COUNTED,
    "InferStatistics": (
        "StatisticDuration success = 1; StatisticDuration fail = 2; StatisticDuration queue = 3; "
        "StatisticDuration compute_input = 4; StatisticDuration compute_infer = 5; "
        "StatisticDuration compute_output = 6; StatisticDuration cache_hit = 7; "
        "StatisticDuration cache_miss = 8"
    ),
    "ModelStatistics": (
        "string name = 1; string version = 2; uint64 last_inference = 3; uint64 inference_count = 4; "
        "uint64 execution_count = 5; InferStatistics inference_stats = 6"
    ),
    "ModelStatisticsResponse": "repeated ModelStatistics model_stats = 1",
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2",
    "RepositoryIndexResponse.ModelIndex": (
        "string name = 1; string version = 2; string state = 3; string reason = 4"
    ),
    "RepositoryIndexResponse": "repeated RepositoryIndexResponse.ModelIndex models = 1",
}
"""Each message's fields in protobuf's words, but `oneof` before each choice and `map` from strings."""

METHODS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelConfig",
    "ModelStatistics", "RepositoryIndex",
)  # fmt: skip
CONFIG_TYPES = {"TYPE_BOOL": 1, "TYPE_FP32": 11, "TYPE_STRING": 13}
"""Numbers of Triton's `inference.DataType`."""

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL, "int32": _Field.TYPE_INT32, "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32, "uint64": _Field.TYPE_UINT64, "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE, "string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES,
}  # fmt: skip


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="sluicegate/open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for name in sorted(MESSAGES, key=lambda name: name.count(".")):
        outer, _, inner = name.rpartition(".")
        holder = made[outer].nested_type if outer else file.message_type
        made[name] = holder.add(name=inner)
    for name, fields in MESSAGES.items():
        for field in filter(None, fields.split("; ")):
            _add(made[name], name, field)
    return file


def _add(message: descriptor_pb2.DescriptorProto, name: str, field: str) -> None:
    *how, kind, word, _, number = field.split()
    made = message.field.add(name=word, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind in _SCALARS:
        made.type = _SCALARS[kind]
    else:
        made.type, made.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    if "repeated" in how:
        made.label = _Field.LABEL_REPEATED
    if "oneof" in how:
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        made.oneof_index = 0
    if "map" in how:
        entry = f"{word.capitalize()}Entry"
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
        nested.field.add(
            name="value", number=2, label=_Field.LABEL_OPTIONAL, type=made.type, type_name=made.type_name
        )
        made.label, made.type_name = _Field.LABEL_REPEATED, f".{PACKAGE}.{name}.{entry}"


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def message(name: str) -> Any:
    """Return the class of a message by its name in the package."""
    found: type[Message] = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    return found
