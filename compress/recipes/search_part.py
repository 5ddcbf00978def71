"""The part of a recipe that `sluice compress --search` reads: where to look, for how long, how to train."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compress.recipes.learning_parts import Augmentation, Distillation, Part, Share, Training

Precision = Literal["fp32", "int8-dynamic", "int8-static"]
Technique = Literal["distil", "prune"]


class SearchSpace(Part):
    """What a student may look like. What is left out follows from the teacher's size."""

    layers: tuple[tuple[int, ...], ...] | None = Field(
        default=None,
        min_length=1,
        description="Teacher layers that stay; by default, per depth, evenly spread, the first, the last",
    )
    heads: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="Per layer; by default a quarter, half and all of the teacher's",
    )
    neurons: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="Per layer; by default an eighth, a quarter, half and all of the teacher's",
    )
    hidden: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="Width of states; by default half and all of the teacher's"
    )
    techniques: tuple[Technique, ...] = Field(
        default=("distil", "prune"),
        min_length=1,
        description="distil: every layer alike. prune: as many heads and neurons, where they matter",
    )
    precisions: tuple[Precision, ...] = Field(default=("fp32", "int8-dynamic"), min_length=1)


class SearchPart(Part):
    """How recipes are explored (NSGA-II) and which of them are trained in full."""

    space: SearchSpace = SearchSpace()
    population: int = Field(default=8, ge=2)
    generations: int = Field(default=8, ge=1)
    minutes: float = Field(
        default=60.0, gt=0, description="For short trainings; the survivors' full trainings come on top"
    )
    short: Training = Training(epochs=1, learning_rate=8e-4)
    full: Training = Training(epochs=3, learning_rate=8e-4, average=True)
    distillation: Distillation = Distillation()
    extra: bool = True
    augment: Augmentation | None = Field(
        default=Augmentation(copies=2, splice=0.5), description="In full trainings only"
    )
    survivors: int = Field(default=8, ge=1, description="Candidates that are trained in full, at most")
    short_accuracy_drop: Share = Field(
        default=0.3,
        description="A candidate must lose no more against the teacher after the short training",
    )
    accuracy_drop: Share = Field(default=0.1, description="And no more than this after the full training")
