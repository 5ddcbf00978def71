"""The family on disk: `family.json`, its records, and a reader that trusts nothing it has not checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from contract.errors import FamilyError
from contract.files import check_sha256, inside, read_json, sha256_of_file, sha256_of_json, write_json
from contract.heard import Agreement, AskedTeacher, HeardTeacher
from contract.machine import EnergyProvenance, Machine, Provider
from contract.records import Frozen, parse_record
from contract.remote import RemoteMeasured

SCHEMA = 1
MANIFEST = "family.json"

VariantKind = Literal[
    "teacher", "distilled", "pruned", "quantized", "linear", "deep_table", "scratch", "fake", "remote"
]
Precision = Literal["fp32", "fp16", "int8-dynamic", "int8-static", "int8-qdq", "int8-weights"]
Batching = Literal["single", "batched"]


class Artifact(Frozen):
    """A file of the family: a path inside its folder, its hash and its size."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class EncoderSpec(Frozen):
    """How texts become the input of a variant. Variants that share an encoder share the work per request.

    pixels: the texts are images, each the base64 of a file. remote: the texts are sent as they are.
    """

    kind: Literal["wordpiece", "ngrams", "pixels", "fake", "remote"]
    artifact: Artifact | None = Field(default=None, description="tokenizer.json for wordpiece")
    max_length: int | None = Field(default=None, gt=0, description="Tokens kept of each text")
    parameters: dict[str, float | int | str | bool] = Field(default_factory=dict)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Identity of the encoding, options included")


class Latency(Frozen):
    """Latency of one variant under one load, texts at the length mix of the measured split."""

    batch: int = Field(ge=1)
    concurrency: int = Field(ge=1)
    threads: int = Field(ge=1)
    provider: Provider | Literal["remote"] = "cpu"
    n: int = Field(ge=1, description="Calls timed")
    p50_ms: float = Field(ge=0, description="Per call, encoding included")
    p99_ms: float = Field(ge=0)
    p99_interval_ms: tuple[float, float] | None = None
    mean_tokens: float | None = None


class Verification(Frozen):
    """How far the exported artifact is from the model it was exported from."""

    label_agreement: float = Field(ge=0, le=1)
    max_logit_error: float = Field(ge=0)
    n: int
    agreement_limit: float
    error_limit: float | None = Field(default=None, description="Of `max_logit_error`")
    batched_agreement: float | None = Field(
        default=None, description="Share of answers that are the same alone and among batchmates"
    )
    batched_logit_change: float | None = Field(
        default=None, description="The most that batchmates change a logit"
    )


class Training(Frozen):
    """What it cost to make a variant from its parent: the sum over the steps that did."""

    seconds: float = Field(ge=0)
    energy_wh: float | None = Field(
        default=None, description="Unknown where one of the steps was not metered"
    )
    gco2e: float | None = None
    energy_provenance: EnergyProvenance = "none"
    usd: float | None = Field(default=None, description="Paid for a remote teacher's answers")
    steps: tuple[str, ...] = Field(default=(), description="Names of the family's steps that are summed")


class StepCost(Frozen):
    """What one step of the recipe cost when it was run."""

    name: str
    kind: str
    seconds: float = Field(ge=0)
    energy_wh: float | None = None
    gco2e: float | None = None
    energy_provenance: EnergyProvenance = "none"
    usd: float | None = Field(default=None, description="Paid to others, as for a teacher's answers")


class SliceQuality(Frozen):
    """Accuracy on the rows of one slice of the test split; the delta is paired, against the teacher."""

    n: int | None = Field(default=None, ge=1)
    accuracy: float = Field(ge=0, le=1)
    accuracy_interval: tuple[float, float] | None = None
    accuracy_delta: float | None = None
    accuracy_delta_interval: tuple[float, float] | None = None


class Variant(Frozen):
    """One deployable model of the family with everything that was measured of it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    kind: VariantKind
    parent: str | None = None
    technique: str = Field(
        default="",
        description="Kind of the recipe's part that it comes from, after those of unlisted ones (` + `)",
    )
    lowering: dict[str, float | int | str] = Field(
        default_factory=dict, description="How its precision was lowered: method, smooth, mixed, calibration"
    )
    step: str = Field(default="", description="Hash of the recipe step that made it")
    runtime: Literal["onnx", "linear", "deep_table", "fake", "remote"]
    precision: Precision = "fp32"
    batching: Batching = Field(
        default="batched",
        description="single: run one text at a time, because batchmates would change the answer",
    )
    artifact: Artifact
    encoder: str = Field(description="Key of the family's encoders")
    parameters: int | None = None
    flops_per_text: float | None = None
    sparsity: float | None = Field(default=None, ge=0, le=1, description="Share of weights that are zero")
    compressed_bytes: int | None = Field(default=None, ge=0, description="Size of the artifact once zipped")
    temperature: float = Field(default=1.0, gt=0)
    ece_before: float | None = Field(
        default=None, description="Expected calibration error on the test split, without the temperature"
    )
    ece_after: float | None = Field(
        default=None, description="The same with the temperature, which was fitted on validation"
    )
    accuracy: float | None = Field(default=None, ge=0, le=1, description="On the test split")
    accuracy_interval: tuple[float, float] | None = None
    accuracy_delta: float | None = Field(default=None, description="Against the teacher; negative is worse")
    accuracy_delta_interval: tuple[float, float] | None = None
    macro_f1: float | None = None
    macro_f1_interval: tuple[float, float] | None = None
    macro_f1_delta: float | None = None
    macro_f1_delta_interval: tuple[float, float] | None = None
    agreement: Agreement | None = Field(
        default=None, description="With the answers of a teacher that is elsewhere"
    )
    per_class: dict[str, dict[str, float | int]] = Field(
        default_factory=dict,
        description="recall, recall_delta, precision and n by label; no recall if n is 0",
    )
    per_slice: dict[str, SliceQuality] = Field(default_factory=dict)
    latency: tuple[Latency, ...] = ()
    speed_up: float | None = Field(default=None, description="Teacher p50 / own p50, batch 1, alone")
    cpu_seconds_per_1k: float | None = None
    peak_memory_bytes: int | None = None
    energy_wh_per_1k: float | None = None
    energy_provenance: EnergyProvenance = "none"
    usd_per_1k: float | None = None
    verification: Verification | None = None
    training: Training | None = None
    remote: RemoteMeasured | None = Field(
        default=None, description="What it did when it was asked, where it is behind HTTP"
    )
    tier: str | None = Field(default=None, description="critical, high or medium, by the accuracy drop")
    notes: tuple[str, ...] = Field(
        default=(),
        description="What a person should know of how it was made, such as a head that was dropped",
    )
    failed_limits: tuple[str, ...] = Field(default=(), description="Limits that it breaks; it passes without")

    @model_validator(mode="before")
    @classmethod
    def _lift_plain_slices(cls, raw: Any) -> Any:
        """Read `accuracy_per_slice`, the plain accuracies of the first manifests, as `per_slice`."""
        if not isinstance(raw, dict) or "accuracy_per_slice" not in raw:
            return raw
        plain = raw["accuracy_per_slice"]
        rest = {key: value for key, value in raw.items() if key != "accuracy_per_slice"}
        if not isinstance(plain, dict):
            return rest
        return {"per_slice": {name: {"accuracy": value} for name, value in plain.items()}} | rest

    @property
    def accuracy_per_slice(self) -> dict[str, float]:
        """Accuracy on the test split by slice."""
        return {name: found.accuracy for name, found in self.per_slice.items()}

    @property
    def time_quantiles(self) -> dict[float, float]:
        """Milliseconds of one text alone, by the share of texts that take no longer; empty where unknown."""
        told = {} if self.remote is None else self.remote.quantiles_ms
        if told:
            return {float(f"0.{name.removeprefix('p')}"): ms for name, ms in told.items()}
        alone = self.latency_at()
        return {} if alone is None else {0.5: alone.p50_ms, 0.99: alone.p99_ms}

    def latency_at(self, *, batch: int = 1, concurrency: int = 1) -> Latency | None:
        """Return the measurement at that batch and concurrency, if there is one."""
        return next((m for m in self.latency if m.batch == batch and m.concurrency == concurrency), None)


class Split(Frozen):
    """One of the disjoint parts of the labelled data."""

    n: int = Field(ge=0)
    sha256: str


class Family(Frozen):
    """All variants of one model."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    name: str
    task: Literal["text-classification"] = "text-classification"
    labels: tuple[str, ...] = Field(min_length=2)
    teacher: str = Field(description="Name of the teacher variant, or of the one in its place")
    heard: HeardTeacher | None = Field(
        default=None, description="The teacher, where only its answers are known; null where it is a variant"
    )
    asked: AskedTeacher | None = Field(
        default=None, description="The teacher, where it stands behind HTTP and was asked for its answers"
    )
    truth: Literal["labels", "teacher"] = Field(
        default="labels",
        description="What figures of quality are counted against: labels, or where the data have none the "
        "teacher's answers",
    )
    splits: dict[str, Split] = Field(default_factory=dict)
    encoders: dict[str, EncoderSpec]
    variants: tuple[Variant, ...] = Field(min_length=1)
    steps: tuple[StepCost, ...] = Field(default=(), description="Every step, in the order it was run")
    predictions: Artifact | None = None
    costs: Artifact | None = None
    data: Artifact | None = Field(default=None, description="Labelled texts of the held-out splits")
    recipe_sha256: str = ""
    machine: Machine | None = None
    created_at: str = ""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [v.name for v in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("two variants share a name")
        for taken, whose in (
            ("cascade", "the router has"),
            ("abstain", "the last stage of policies may have"),
        ):
            if taken in names:
                raise ValueError(f"no variant may be named {taken!r}: {whose} that name")
        if self.teacher not in names:
            raise ValueError(f"the teacher {self.teacher!r} is not among the variants")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two labels are equal")
        for variant in self.variants:
            if variant.encoder not in self.encoders:
                raise ValueError(f"variant {variant.name!r} names an unknown encoder {variant.encoder!r}")
        return self

    def variant(self, name: str) -> Variant:
        """Return the variant of that name.

        Raises:
            FamilyError: naming the variants there are.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        known = ", ".join(v.name for v in self.variants)
        raise FamilyError(f"the family {self.name!r} has no variant {name!r}", hint=f"one of: {known}")

    def build(self, name: str) -> str:
        """Return the hash of all that a variant's logits depend on: equal hashes mean the same answers.

        Raises:
            FamilyError: naming the variants there are.
        """
        variant = self.variant(name)
        encoder = self.encoders[variant.encoder].sha256
        return sha256_of_json([name, variant.artifact.sha256, variant.batching, encoder, list(self.labels)])

    @property
    def judged(self) -> tuple[Variant, ...]:
        """The variants that limits are about: all that have been compared with the teacher."""
        alone = self.heard is None or not self.heard.deltas
        return tuple(v for v in self.variants if not (alone and v.name == self.teacher))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the variants, in manifest order."""
        return tuple(v.name for v in self.variants)

    @property
    def sha256(self) -> str:
        """Hash of the manifest: every artifact hash is in it, so it names the whole family.

        When it was written is left out: a family that is written again unchanged is the same family. So are
        keys at their defaults: a manifest keeps its name when a later version knows more keys.
        """
        told = self.model_dump(mode="json", by_alias=True, exclude={"created_at"}, exclude_defaults=True)
        return sha256_of_json(told)

    def dump(self) -> dict[str, object]:
        """Return the JSON form, as written to `family.json`."""
        return self.model_dump(mode="json", by_alias=True)


def write_family(folder: Path, family: Family) -> Path:
    """Write `family.json` atomically into the folder and return its path."""
    path = folder / MANIFEST
    write_json(path, family.dump())
    return path


def read_family(folder: Path, *, verify: bool = True) -> Family:
    """Read and check a family folder.

    Args:
        folder: the folder that holds `family.json`, or the path of that file.
        verify: also compare the sha256 of every artifact with the manifest.

    Raises:
        FamilyError: no manifest, a newer schema, a broken rule, a wrong hash, a path that leaves the folder.
    """
    path = folder if folder.name == MANIFEST else folder / MANIFEST
    if not path.is_file():
        raise FamilyError(
            "there is no family here", where=path, hint="sluice compress RECIPE --out FAMILY, or sluice demo"
        )
    raw = read_json(path, error=FamilyError)
    family = parse_record(Family, raw, where=path, error=FamilyError, newest=SCHEMA)
    for artifact in artifacts_of(family):
        target = inside(path.parent, artifact.path)
        if verify:
            check_sha256(target, artifact.sha256)
    return family


def artifacts_of(family: Family) -> list[Artifact]:
    """Return every artifact that the manifest names."""
    found = [v.artifact for v in family.variants]
    found += [e.artifact for e in family.encoders.values() if e.artifact is not None]
    found += [a for a in (family.predictions, family.costs, family.data) if a is not None]
    return found


def artifact_of(folder: Path, path: Path) -> Artifact:
    """Describe a file of the folder: relative path, sha256, size."""
    return Artifact(
        path=path.relative_to(folder).as_posix(), sha256=sha256_of_file(path), bytes=path.stat().st_size
    )
