"""What every part of a recipe is made of: names and shares, and how a network learns."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Base of every part of a recipe: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Training(Part):
    """Settings of one training run."""

    epochs: int = Field(default=3, ge=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup: Share = 0.1
    weight_decay: float = Field(default=0.01, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bfloat16 where the processor multiplies it natively"
    )
    average: bool = Field(
        default=False, description="Keep the mean of the weights over the last quarter of the steps"
    )


class Distillation(Part):
    """How answers are learnt.

    The loss is soft_weight x T^2 x KL(teacher/T || student/T) + (1 - soft_weight) x cross-entropy
    + hidden_weight x (mean squared difference of normalised hidden states)
    + attention_weight x KL(teacher's attention || student's).
    """

    temperature: float = Field(default=2.0, gt=0)
    soft_weight: Share = 0.9
    hidden_weight: float = Field(default=0.0, ge=0)
    attention_weight: float = Field(default=0.0, ge=0)
    layer_map: tuple[int, ...] | None = Field(
        default=None,
        description="Teacher layer that each student layer imitates; evenly spread when left out",
    )

    @model_validator(mode="after")
    def _map_is_read(self) -> Self:
        if self.layer_map is not None and not (self.hidden_weight or self.attention_weight):
            raise ValueError("`layer_map` needs a `hidden_weight` or an `attention_weight` above 0")
        return self


class Augmentation(Part):
    """Altered copies of the training texts; they have no label, only the teacher's answer."""

    copies: int = Field(default=1, ge=1)
    drop: Share = Field(default=0.1, description="Chance that a word is left out")
    swap: Share = Field(default=0.05, description="Chance that a word changes places with the next")
    splice: Share = Field(default=0.3, description="Chance that a copy goes on as another text")
    replace: Share = Field(
        default=0.0, description="Chance that a word gives way to one that the teacher holds for similar"
    )


class Learner(Part):
    """What every variant that learns from another has in common."""

    name: Name
    parent: Name
    teacher: Name | None = Field(default=None, description="Whose answers it learns, if not its parent's")
    distillation: Distillation = Distillation()
    extra: bool = Field(default=True, description="Learn from the extra and unlabelled texts too")
    augment: Augmentation | None = None
    curriculum: bool = Field(
        default=False,
        description="Begin with the texts that the teacher is surest about",
    )
    training: Training = Training(epochs=5)
