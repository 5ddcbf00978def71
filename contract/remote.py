"""A model behind HTTP as a record: where it is, how it is asked, what it may cost. Never a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from contract.errors import InputError
from contract.files import sha256_of_json
from contract.records import Frozen, parse_record
from contract.urls import parse_base_url

SCHEMA = 1

Form = Literal["decisions", "chat", "oip"]

_ENDS = ("/decisions", "/chat/completions", "/v2")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNSEEN = ("timeout_s", "retries", "max_concurrency", "max_per_s", "credentials", "proxy", "answers_of")
_PRICES = ("usd_per_call", "usd_per_1k_tokens_in", "usd_per_1k_tokens_out")


class _Strict(BaseModel):
    """Immutable, and strict about names: an option that is not known would change how a model is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Credentials(_Strict):
    """Where the key of a model lies: an environment variable or a file of the machine that asks."""

    env: str | None = Field(default=None, description="Name of the environment variable that holds it")
    file: str | None = Field(default=None, description="Absolute path of the file that holds it")
    header: str = Field(default="authorization", description="Header that carries it")
    scheme: str = Field(default="Bearer", description="Word before it; empty: the key alone")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give `env`, the name of a variable, or `file`, a path, and not both")
        if self.env is not None and not _ENV.fullmatch(self.env):
            raise ValueError("`env` is the NAME of an environment variable, never the key itself")
        if self.file is not None and not PurePath(self.file).is_absolute():
            raise ValueError("`file` must be an absolute path: gateways do not run in your folder")
        if not _HEADER.fullmatch(self.header):
            raise ValueError(f"`header` {self.header!r} is no name of a header")
        if not self.scheme.isascii() or not self.scheme.isprintable():
            raise ValueError("`scheme` must be printable ASCII, such as Bearer")
        return self


class RemoteLabel(_Strict):
    """How a label is put to the model."""

    says: str | None = Field(default=None, min_length=1, description="Its name there; null: the label itself")
    description: str | None = Field(default=None, description="What it means, for the model to read")


class ChatOptions(_Strict):
    """How a chat model is held to the labels."""

    constrain: Literal["schema", "tool", "none"] = Field(
        default="schema",
        description="schema: JSON schema of the answer; tool: a function that must be called; none: it is "
        "only told the labels",
    )
    logprobs: bool = Field(default=True, description="Ask for log-probabilities, to know how sure it is")
    top_logprobs: int = Field(default=10, ge=1, le=20, description="Tokens told at each place")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="null: 0 for one answer, 1 where it is asked several times"
    )
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="Further keys of the request body, such as max_completion_tokens; null leaves "
        "one of ours out",
    )

    @field_validator("extra")
    @classmethod
    def _no_own_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        own = {"model", "messages", "stream", "n", "tools", "tool_choice", "response_format"} & value.keys()
        if own:
            raise ValueError(f"{sorted(own)[0]!r} is set by Sluicegate itself")
        return value


class OipOptions(_Strict):
    """Which tensors of an Open Inference Protocol server hold texts and answers."""

    input: str = Field(default="text", min_length=1, description="Input of datatype BYTES")
    shape: Literal["[N]", "[N,1]"] = "[N]"
    output: str = Field(default="probabilities", min_length=1, description="Output that is read")
    values: Literal["probabilities", "logits", "label"] = Field(
        default="probabilities", description="What it holds: [N, classes] numbers, or [N] names of labels"
    )
    confidence: str | None = Field(
        default=None, description="With `values: label`: the output [N] that says how sure it is"
    )
    columns: tuple[str, ...] = Field(
        default=(), description="Labels in the order of its columns; empty: the family's order"
    )
    batch: int = Field(default=16, ge=1, le=1024, description="Texts of one request")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.confidence is not None and self.values != "label":
            raise ValueError("`confidence` goes with `values: label`; numbers say how sure it is")
        if self.columns and self.values == "label":
            raise ValueError("`columns` goes with numbers, not with `values: label`")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("`columns` names a label twice")
        return self


class RemoteModel(_Strict):
    """A model behind HTTP that answers a family's closed question.

    The price is of one question, answered once: where a text is asked several times (`repeats`), it costs as
    many times as much.
    """

    schema_: int = Field(default=SCHEMA, alias="schema", ge=1, le=SCHEMA)
    form: Form = Field(
        description="decisions: POST URL/decisions; chat: POST URL/chat/completions; oip: POST "
        "URL/v2/models/MODEL/infer"
    )
    url: str = Field(description="Base address, such as https://models.example/v1; without a key in it")
    model: str = Field(min_length=1, max_length=256)
    answers_of: str | None = Field(
        default=None,
        description="Its address before it moved: answers that are kept from there count as its own",
    )
    instructions: str = Field(default="Which label fits this text?", description="The question")
    labels: dict[str, RemoteLabel] = Field(
        default_factory=dict, description="By label; one that is not here is put as it is"
    )
    inputs: Literal["text", "image"] = Field(
        default="text", description="image: what is classified is the base64 of an image file"
    )
    credentials: Credentials | None = None
    proxy: str | None = Field(
        default=None,
        description="http://HOST:PORT of a proxy on the way; none is read from the environment",
    )
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="Of one request")
    retries: int = Field(
        default=3, ge=0, le=20, description="Further tries of a question in a table; gateways have their own"
    )
    max_concurrency: int = Field(default=8, ge=1, le=1024, description="Requests out at a time")
    max_per_s: float | None = Field(default=None, gt=0, description="Requests begun per second")
    repeats: int = Field(
        default=1,
        ge=1,
        le=32,
        description="Times that a text is asked; the answers' agreement tells how sure a model is that says "
        "no probabilities",
    )
    usd_per_call: float | None = Field(default=None, ge=0, description="0 where it costs nothing")
    usd_per_1k_tokens_in: float | None = Field(default=None, ge=0)
    usd_per_1k_tokens_out: float | None = Field(default=None, ge=0)
    chat: ChatOptions = ChatOptions()
    oip: OipOptions = OipOptions()

    model_config = ConfigDict(populate_by_name=True)

    @field_validator("labels", mode="before")
    @classmethod
    def _short_labels(cls, value: Any) -> Any:
        """Read `label: what it means` as its description."""
        if not isinstance(value, dict):
            return value
        return {
            str(name): {"description": one} if isinstance(one, str) else ({} if one is None else one)
            for name, one in value.items()
        }

    @field_validator("proxy")
    @classmethod
    def _proxy_address(cls, value: str | None) -> str | None:
        return None if value is None else _address_of(value)

    @field_validator("url", "answers_of")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        found = _address_of(value)
        for end in _ENDS:
            if found.endswith(end):
                raise ValueError(f"leave out {end}: the address is what comes before it")
        return found

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.price is None:
            raise ValueError(
                "say what it costs: usd_per_call (0 where it is free), or usd_per_1k_tokens_in and _out"
            )
        if self.form == "oip":
            if self.usd_per_call is None:
                raise ValueError("an oip server tells no tokens: its price is usd_per_call, of one text")
            if self.repeats > 1 or "/" in self.model:
                raise ValueError("with `form: oip`, repeats is 1 and a model's name has no slash")
        return self

    @property
    def price(self) -> tuple[float, float, float] | None:
        """USD of one call, of 1,000 tokens in, and of 1,000 tokens out; None where no price is given."""
        given = [getattr(self, name) for name in _PRICES]
        if all(one is None for one in given):
            return None
        call, tokens_in, tokens_out = (one or 0.0 for one in given)
        return call, tokens_in, tokens_out

    def usd(self, calls: int, tokens_in: int = 0, tokens_out: int = 0) -> float:
        """Return what so many calls cost that took so many tokens in all."""
        call, each_in, each_out = self.price or (0.0, 0.0, 0.0)
        return calls * call + tokens_in / 1000 * each_in + tokens_out / 1000 * each_out

    @property
    def priced_by_call(self) -> bool:
        """Whether what a call costs is known before it is made."""
        _, tokens_in, tokens_out = self.price or (0.0, 0.0, 0.0)
        return not tokens_in and not tokens_out

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return what a family's labels are called there.

        Raises:
            InputError: this record names a label that the family has not, or two have one name there.
        """
        strangers = sorted(set(self.labels) - set(labels)) or sorted(set(self.oip.columns) - set(labels))
        if strangers:
            raise InputError(
                f"the remote model names a label that there is not: {strangers[0]!r}",
                hint=f"one of: {', '.join(labels[:20])}",
            )
        if self.oip.columns and len(self.oip.columns) != len(labels):
            raise InputError(
                f"oip.columns names {len(self.oip.columns)} of {len(labels)} labels", hint="name them all"
            )
        found = tuple(self._label(label).says or label for label in labels)
        if len(set(found)) != len(found):
            twice = next(name for name in found if found.count(name) > 1)
            raise InputError(f"two labels are called {twice!r} there", hint="give them different `says`")
        return found

    def descriptions(self, labels: tuple[str, ...]) -> tuple[str | None, ...]:
        """Return what is said of each of a family's labels; None where nothing is."""
        return tuple(self._label(label).description for label in labels)

    def identity(self, labels: tuple[str, ...]) -> str:
        """Return the hash of all that an answer depends on: equal hashes mean that an answer may be kept.

        The address is in it, as `answers_of` has it: one server is not known to answer as another.
        """
        told = self.model_copy(update={"url": self.answers_of or self.url}).model_dump(
            mode="json", exclude={*_UNSEEN, *_PRICES, "schema_"}, exclude_defaults=True
        )
        return sha256_of_json([told, list(labels)])

    def dump(self) -> dict[str, Any]:
        """Return the JSON form, what stands at its default left out."""
        told = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {"schema": SCHEMA} | told

    def _label(self, label: str) -> RemoteLabel:
        return self.labels.get(label, RemoteLabel())


class RemoteMeasured(Frozen):
    """What a remote variant did when it was asked for the family's rows."""

    n: int = Field(ge=1, description="Texts asked")
    unanswered: int = Field(ge=0, description="Texts that got no answer in the end")
    calls: int = Field(ge=0, description="Requests sent, repeated ones included")
    failed: int = Field(ge=0, description="Requests that failed, those tried again included")
    failure_rate: float = Field(ge=0, le=1, description="failed / calls")
    failure_interval: tuple[float, float]
    failures: dict[str, int] = Field(default_factory=dict, description="By kind")
    tokens_in_per_text: float | None = None
    tokens_out_per_text: float | None = None
    usd: float = Field(ge=0, description="What the answers cost, kept ones included")
    quantiles_ms: dict[str, float] = Field(
        default_factory=dict, description="Time of one answered text by quantile: p50, p90, p95, p99, p999"
    )


def _address_of(value: str) -> str:
    try:
        return str(parse_base_url(value))
    except InputError as problem:
        raise ValueError(problem.rule) from None


def parse_remote(
    raw: Mapping[str, Any], *, where: object | None = None, error: type[InputError] = InputError
) -> RemoteModel:
    """Return the record of a JSON or YAML document. Raises InputError (of the kind given)."""
    return parse_record(RemoteModel, raw, where=where, error=error, newest=SCHEMA)
