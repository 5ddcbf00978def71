"""The wire types as OpenAPI shows them, an example on every field. The hot routes parse by hand."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Wire(BaseModel):
    """Base of the wire types: strict, as the parsers are."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class ClassifyBody(Wire):
    """Texts to classify."""

    inputs: str | list[str] = Field(
        description="One text, or a list of one or more",
        examples=["Shares rose after the bank cut its rates."],
    )
    model: str | None = Field(
        default="cascade",
        description="`cascade`, or a variant by name; of several families `NAME`, or `NAME/VARIANT`",
        examples=["cascade"],
    )
    top_k: int | None = Field(default=1, ge=1, description="Classes listed per text", examples=[1])
    deadline_ms: float | None = Field(
        default=None,
        gt=0,
        description="The client waits this long; the cascade answers cheaply rather than late",
        examples=[50.0],
    )
    sticky_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="While a canary runs, requests with the same key are answered by the same arm",
        examples=["user 42"],
    )


class ClassScore(Wire):
    """One class with its calibrated probability."""

    label: str = Field(examples=["business"])
    confidence: float = Field(ge=0, le=1, examples=[0.93])


class ClassifyOutput(Wire):
    """The answer to one text."""

    label: str | None = Field(description="Null where nobody answers", examples=["business"])
    confidence: float = Field(ge=0, le=1, examples=[0.93])
    variant: str = Field(
        description="Variant that answered; `abstain` where nobody does", examples=["linear"]
    )
    escalated: bool = Field(description="Whether a later stage answered", examples=[False])
    degraded: bool = Field(
        description="Whether a cheaper stage answered than the policy wanted", examples=[False]
    )
    abstained: bool | None = Field(
        default=None,
        description="Under a policy that abstains: whether the text is left to a person",
        examples=[False],
    )
    top: list[ClassScore] | None = Field(
        default=None,
        description="With top_k above 1: the surest classes first",
        examples=[[{"label": "business", "confidence": 0.93}, {"label": "politics", "confidence": 0.04}]],
    )


class ClassifyReply(Wire):
    """Answers in the order of the texts."""

    outputs: list[ClassifyOutput]
    model: str = Field(examples=["cascade"])
    policy_version: str | None = Field(
        description="sha256 of the policy that decided; null for a variant by name", examples=["9f2c…"]
    )
    gear: str | None = Field(
        default=None,
        description="Gear of the policy that all texts were answered in; left out where it has none",
        examples=["busy"],
    )


class ErrorBody(Wire):
    """Every refusal, on every route."""

    error: str = Field(examples=["unknown model 'nobody'; serving: cascade, linear, teacher"])


class Live(Wire):
    """The process answers."""

    live: bool = Field(examples=[True])


class Ready(Wire):
    """Every stage of the policy answers."""

    ready: bool = Field(examples=[True])


class ModelReady(Ready):
    """The model answers."""

    name: str = Field(examples=["cascade"])


class ServerMetadata(Wire):
    """Who serves, and which extensions it speaks."""

    name: str = Field(examples=["sluicegate"])
    version: str = Field(examples=["0.1.0"])
    extensions: list[str] = Field(examples=[["binary_tensor_data", "statistics"]])


class Greeting(ServerMetadata):
    """Who serves, and that the process answers in the words of KServe's first protocol."""

    status: Literal["alive"] = Field(examples=["alive"])


class ModelNames(Wire):
    """What is served."""

    models: list[str] = Field(examples=[["cascade", "linear", "teacher"]])


class ListedModel(Wire):
    """One served model, as OpenAI's API lists them."""

    id: str = Field(examples=["cascade"])
    object: Literal["model"] = Field(examples=["model"])
    created: int = Field(description="Unix second at which the family was made; 0: not known", examples=[0])
    owned_by: str = Field(examples=["sluicegate"])


class OneModel(ListedModel, ModelReady):
    """One served model that answers, as OpenAI's API and KServe's first protocol describe it."""


class ModelList(Wire):
    """What is served, as OpenAI's API lists it."""

    object: Literal["list"] = Field(examples=["list"])
    data: list[ListedModel]


class IndexBody(Wire):
    """Which models to list; without a body, all."""

    ready: bool = Field(default=False, description="Only those that answer now", examples=[True])


class IndexEntry(Wire):
    """One served model and whether it answers."""

    name: str = Field(examples=["cascade"])
    version: str = Field(examples=["1"])
    state: Literal["READY", "UNAVAILABLE"] = Field(examples=["READY"])
    reason: str | None = Field(default=None, examples=["a stage of it does not answer"])


class TensorMetadata(Wire):
    """Name, type and shape of a tensor; -1 is any length."""

    name: str = Field(examples=["text"])
    datatype: str = Field(examples=["BYTES"])
    shape: list[int] = Field(examples=[[-1]])


class ModelMetadata(Wire):
    """What a model takes and gives."""

    name: str = Field(examples=["cascade"])
    versions: list[str] = Field(examples=[["1"]])
    platform: str = Field(examples=["sluicegate_cascade"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any] = Field(
        description="`content`: sha256 of the policy or artifact; `labels`: the label set",
        examples=[{"content": "9f2c…", "labels": ["business", "sport"]}],
    )


class TensorConfiguration(Wire):
    """Name, type and shape of a tensor in Triton's terms, without the dimension that counts the texts."""

    name: str = Field(examples=["text"])
    data_type: str = Field(examples=["TYPE_STRING"])
    dims: list[int] = Field(examples=[[]])


class ModelConfiguration(Wire):
    """The configuration of a model in Triton's form, as far as it applies."""

    name: str = Field(examples=["cascade"])
    platform: str = Field(examples=["sluicegate_cascade"])
    backend: str = Field(examples=["sluicegate"])
    version_policy: dict[str, Any] = Field(examples=[{"latest": {"num_versions": 1}}])
    max_batch_size: int = Field(description="Texts of one request", examples=[256])
    input: list[TensorConfiguration]
    output: list[TensorConfiguration]
    instance_group: list[dict[str, Any]] = Field(examples=[[{"name": "cascade", "kind": "KIND_AUTO"}]])
    parameters: dict[str, Any] = Field(examples=[{"content": {"string_value": "9f2c…"}}])


class Duration(Wire):
    """How often, and how long together."""

    count: int = Field(examples=[120])
    ns: int = Field(description="Nanoseconds; 0 where it is not measured", examples=[96000000])


class InferStatistics(Wire):
    """Requests by their outcome, and the parts of their time; what does not exist here stays at 0."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class ModelStatistics(Wire):
    """What a model has done since the gateway started, over all its processes on this machine."""

    name: str = Field(examples=["teacher"])
    version: str = Field(examples=["1"])
    inference_count: int = Field(description="Texts", examples=[480])
    execution_count: int = Field(description="Calls of the model", examples=[60])
    inference_stats: InferStatistics
    batch_stats: list[dict[str, Any]] = Field(description="Not kept here", examples=[[]])


class Statistics(Wire):
    """Statistics of one model, or of all."""

    model_stats: list[ModelStatistics]


class Open(Wire):
    """Base of what protocol clients send: keys that this gateway does not know are let pass."""

    model_config = ConfigDict(extra="allow")


class InferInput(Open):
    """The text tensor. With the binary extension `data` is left out and the bytes follow the JSON."""

    name: Literal["text"] = Field(examples=["text"])
    shape: list[int] = Field(description="[N] or [N, 1]", examples=[[1]])
    datatype: Literal["BYTES"] = Field(examples=["BYTES"])
    parameters: dict[str, Any] | None = Field(default=None, examples=[{"binary_data_size": 45}])
    data: list[str] | list[list[str]] | None = Field(
        default=None, examples=[["Shares rose after the bank cut its rates."]]
    )


class InferRequestedOutput(Open):
    """One output that the client wants."""

    name: str = Field(examples=["label"])
    parameters: dict[str, Any] | None = Field(default=None, examples=[{"binary_data": False}])


class InferBody(Open):
    """An inference request of the Open Inference Protocol."""

    id: str | None = Field(default=None, description="Echoed", examples=["42"])
    parameters: dict[str, Any] | None = Field(
        default=None,
        description="`timeout` in microseconds; `priority`, 1 the highest, 9 the lowest, 0 the default (5); "
        "`sticky_key`, a text: the same one meets the same arm of a canary; "
        "`binary_data_output` asks for all outputs in binary",
        examples=[{"timeout": 50000, "priority": 1}],
    )
    inputs: list[InferInput]
    outputs: list[InferRequestedOutput] | None = Field(
        default=None, description="All that the model offers, where left out", examples=[[{"name": "label"}]]
    )


class InferOutput(Wire):
    """One tensor of the answer."""

    name: str = Field(examples=["label"])
    datatype: str = Field(examples=["BYTES"])
    shape: list[int] = Field(examples=[[1]])
    parameters: dict[str, Any] | None = Field(default=None, examples=[{"binary_data_size": 12}])
    data: list[Any] | None = Field(default=None, examples=[["business"]])


class InferReply(Wire):
    """The answer of the Open Inference Protocol."""

    model_name: str = Field(examples=["cascade"])
    model_version: str = Field(examples=["1"])
    id: str | None = Field(default=None, examples=["42"])
    parameters: dict[str, Any] | None = Field(default=None, examples=[{"policy_version": "9f2c…"}])
    outputs: list[InferOutput]
