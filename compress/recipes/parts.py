"""The parts of a recipe that make variants: one class per technique, each with all of its settings."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from compress.recipes.learning_parts import Augmentation, Learner, Name, Part, Share, Training
from contract.errors import RecipeError

RANDOM = "random"


class ImagePart(Part):
    """Images as a network takes them: resized, then (value - mean) / std of values between 0 and 1."""

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] = Field(default=(0.5,), min_length=1, description="One for all channels, or each")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.5,), min_length=1)
    centre: Share = Field(
        default=0.0,
        description="Share of the largest centred region of that shape that is kept; 0 stretches the image",
    )

    @model_validator(mode="after")
    def _per_channel(self) -> Self:
        if not {len(self.mean), len(self.std)} <= {1, self.channels}:
            raise ValueError(f"`mean` and `std` need one value, or {self.channels}")
        return self


class DistilPart(Learner):
    """A student of any depth and width, initialised from layers of its parent or of other weights."""

    kind: Literal["distil"]
    weights: str | None = Field(
        default=None,
        description="Where the layers come from instead of the parent: a folder or package of a BERT, "
        "RoBERTa or DistilBERT, with whose tokenizer the student then reads; `random`: new layers of "
        "`hidden`, `heads` and `neurons` over the parent's tokens",
    )
    layers: tuple[int, ...] = Field(min_length=1, description="Parent layers that the student starts from")
    hidden: int | None = Field(default=None, ge=8, description="Width of its states")
    heads: int | None = Field(default=None, ge=0, description="Heads of every layer")
    neurons: int | None = Field(default=None, ge=0, description="Neurons of every layer")
    twin: bool = Field(
        default=False,
        description="Also train NAME-twin: the same from random weights, labels only",
    )

    @model_validator(mode="after")
    def _random_is_sized(self) -> Self:
        if self.weights != RANDOM:
            return self
        if not (self.hidden and self.heads and self.neurons):
            raise ValueError("`weights: random` needs `hidden`, `heads` and `neurons`")
        if self.hidden % self.heads:
            raise ValueError(f"`hidden` {self.hidden} is no multiple of `heads` {self.heads}")
        return self


class CnnPart(Learner):
    """A convolutional student over the parent's word-piece embeddings."""

    kind: Literal["cnn"]
    channels: int = Field(default=128, ge=1, description="Filters per width")
    widths: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field(
        default=(1, 2, 3), min_length=1, description="Word pieces per filter"
    )
    embedding: int | None = Field(default=None, ge=4, description="Width of a word piece")
    twin: bool = False


class PrunePart(Learner):
    """A copy of its parent with attention heads, feed-forward neurons or whole layers removed."""

    kind: Literal["prune"]
    layers: tuple[int, ...] | None = Field(default=None, description="Parent layers that stay")
    heads: float = Field(default=0.5, gt=0, le=1, description="Share of all heads that stay")
    neurons: float = Field(default=0.4, gt=0, le=1, description="Share of all feed-forward neurons that stay")
    rounds: int = Field(default=1, ge=1, description="Prune and train in so many steps of equal ratio")
    training: Training = Training(epochs=3)


class LatencyPart(Learner):
    """A chain of copies, each so many times as fast as the parent by a latency table of the target.

    Makes one variant per speed-up, named NAME-2x and so on; each starts from the one before.
    """

    kind: Literal["latency"]
    speed_ups: tuple[float, ...] = Field(min_length=1, description="Against the parent, ascending, above 1")
    precision: Literal["fp32", "int8-dynamic", "int8-static"] = Field(
        default="int8-dynamic", description="Of the graphs that the table is measured on"
    )
    texts: int = Field(default=1024, ge=16, description="Training texts that the Hessians are made from")
    trials: int = Field(default=60, ge=0, description="Allocations tried on real loss per speed-up")
    training: Training = Training(epochs=4)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.speed_ups[0] <= 1 or list(self.speed_ups) != sorted(set(self.speed_ups)):
            raise ValueError("`speed_ups` must ascend from above 1")
        return self

    @property
    def made(self) -> tuple[str, ...]:
        """Names of the variants, in order."""
        return tuple(f"{self.name}-{speed_up:g}x" for speed_up in self.speed_ups)


class MagnitudePart(Learner):
    """A copy of its parent with single weights set to zero, in rounds, until accuracy falls to a floor."""

    kind: Literal["magnitude"]
    step: float = Field(default=0.3, gt=0, lt=1, description="Share of the rest that a round removes")
    most: float = Field(default=0.95, gt=0, lt=1, description="Share of weights removed at which it stops")
    floor: float = Field(
        default=0.01, ge=0, description="Accuracy drop against the parent, on validation, that ends it"
    )
    training: Training = Training(epochs=1)


class ChannelsPart(Learner):
    """A copy of its parent, an image classifier, without the convolution channels that matter least.

    Channels that belong together (through skips, groups, normalisation) go together. What is left is
    trained on the answers of the parent.
    """

    kind: Literal["channels"]
    keep: float | None = Field(default=None, gt=0, lt=1, description="Share of all channels that stays")
    speed_up: float | None = Field(
        default=None, gt=1, description="Multiply-adds of the parent over its own; in place of `keep`"
    )
    importance: Literal["taylor", "magnitude"] = Field(
        default="taylor", description="taylor: first-order change of the loss; magnitude: size of the weights"
    )
    whole: bool = Field(
        default=True, description="Rank the channels of all layers together, or of each alone"
    )
    round_to: int = Field(default=8, ge=1, description="Channel counts are multiples of this")
    images: int = Field(default=256, ge=8, description="Training images that `taylor` scores on")
    rounds: int = Field(default=1, ge=1, description="Prune and train in so many steps of equal size")
    training: Training = Training(epochs=5, learning_rate=1e-3)

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if (self.keep is None) == (self.speed_up is None):
            raise ValueError("give `keep` or `speed_up`, one of them")
        if self.importance == "magnitude" and self.images != type(self).model_fields["images"].default:
            raise ValueError("`images` goes with `importance: taylor`")
        return self


class VocabularyPart(Part):
    """A copy of its parent without the word pieces that the training texts never use."""

    kind: Literal["vocabulary"]
    name: Name
    parent: Name
    min_count: int = Field(default=1, ge=1, description="Occurrences that keep a word piece")


class QuantizePart(Part):
    """A copy of its parent's graph in lower precision.

    dynamic: INT8, activations scaled at run time. static: INT8 with calibrated activations (U8S8, for CPU).
    qdq: explicit quantize-dequantize pairs, symmetric S8S8 (for TensorRT). fp16: half precision (for GPU).
    """

    kind: Literal["quantize"]
    name: Name
    parent: Name
    method: Literal["dynamic", "static", "qdq", "fp16"] = "dynamic"
    smooth: float | None = Field(
        default=None, ge=0, le=1, description="SmoothQuant: share of the difficulty moved to the weights"
    )
    mixed: float | None = Field(
        default=None, ge=0, description="Accuracy drop on validation above which layers go back to FP32"
    )
    calibration: int = Field(default=256, ge=8, description="Training texts, stratified, that set the scales")

    @model_validator(mode="after")
    def _nothing_unread(self) -> Self:
        if self.method == "fp16" and self.mixed is not None:
            raise ValueError("`mixed` is for INT8, not for fp16")
        unread = self.method in {"dynamic", "fp16"} and self.smooth is None
        if unread and self.calibration != type(self).model_fields["calibration"].default:
            raise ValueError(
                f"`calibration` sets no scales with `method: {self.method}` unless with `smooth`"
            )
        return self


class QatPart(Learner):
    """An INT8 copy of its parent that was trained with quantized weights and activations."""

    kind: Literal["qat"]
    method: Literal["dynamic", "static"] = "dynamic"
    training: Training = Training(epochs=2, learning_rate=5e-5)

    @model_validator(mode="after")
    def _ranges_are_learnt(self) -> Self:
        if self.method == "static" and self.training.epochs < 1:
            raise ValueError("`method: static` learns its ranges in training: it needs an epoch at least")
        return self


class NgramPart(Part):
    """A model over hashed n-grams; with a parent it learns from the parent's answers too."""

    name: Name
    parent: Name | None = None
    word_orders: int = Field(default=2, ge=0, le=8)
    shortest: int = Field(default=3, ge=1)
    longest: int = Field(default=5, ge=0, le=16)
    bits: int = Field(default=20, ge=8, le=28)
    max_characters: int = Field(default=4096, ge=1)
    epochs: int = Field(default=12, ge=1)
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0, 2.0),
        min_length=1,
        description="Each softens the parent's answers for one training; the best is kept",
    )
    extra: bool = True
    augment: Augmentation | None = None

    @model_validator(mode="after")
    def _has_features(self) -> Self:
        if 0 < self.longest < self.shortest:
            raise ValueError(
                "`shortest` is above `longest`; with `longest: 0` there are no character n-grams"
            )
        if self.word_orders == 0 and self.longest == 0:
            raise ValueError("`word_orders: 0` and `longest: 0` leave nothing to learn from")
        return self

    @model_validator(mode="after")
    def _somebody_to_ask(self) -> Self:
        if self.parent is None and self.augment is not None:
            raise ValueError("`augment` needs a `parent`: only its answers say what altered copies are")
        if self.parent is None and self.temperatures != (1.0, 2.0):
            raise ValueError("`temperatures` needs a `parent`, whose answers they soften")
        return self


class LinearPart(NgramPart):
    """A linear model over hashed n-grams."""

    kind: Literal["linear"]


class DeepTablePart(NgramPart):
    """A model over hashed n-grams with one hidden layer, in INT8, so that n-grams count together too."""

    kind: Literal["deep_table"]
    epochs: int = Field(default=20, ge=1)
    hidden: int = Field(default=128, ge=1, le=4096, description="Hidden units")
    dropout: float = Field(
        default=0.3, ge=0, lt=1, description="Chance that an n-gram is left out of a text for one step"
    )


def require_layers(part: DistilPart | PrunePart, depth: int) -> None:
    """Raise RecipeError when a part names a layer that a parent of `depth` layers does not have."""
    for layer in part.layers or ():
        if not 0 <= layer < depth:
            raise RecipeError(
                f"variant {part.name!r}: no layer {layer}; its parent {part.parent!r} has 0 to {depth - 1}"
            )


VariantPart = Annotated[
    DistilPart
    | CnnPart
    | PrunePart
    | LatencyPart
    | MagnitudePart
    | ChannelsPart
    | VocabularyPart
    | QuantizePart
    | QatPart
    | LinearPart
    | DeepTablePart,
    Field(discriminator="kind"),
]

# Parts that work on image classifiers.
IMAGE_KINDS = frozenset({"channels", "magnitude", "quantize"})


def made_by(part: VariantPart) -> tuple[str, ...]:
    """Return the names of the variants that a part makes, in order."""
    if isinstance(part, LatencyPart):
        return part.made
    if isinstance(part, DistilPart | CnnPart) and part.twin:
        return (part.name, f"{part.name}-twin")
    return (part.name,)
