"""From the numbers that a search turns to the parts of a recipe, and to names that people can read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compress.recipes.parts import DistilPart, PrunePart, QuantizePart
from compress.recipes.search_part import Precision, SearchPart, SearchSpace, Technique
from contract.errors import RecipeError

LONGEST_NAME = 41
SUFFIXES: dict[Precision, str] = {"fp32": "", "int8-dynamic": "-int8", "int8-static": "-int8s"}
METHODS: dict[Precision, Literal["dynamic", "static"]] = {"int8-dynamic": "dynamic", "int8-static": "static"}


@dataclass(frozen=True)
class TeacherSize:
    """How large the transformer is that all candidates come from: depth, and widths of its widest layer."""

    depth: int
    heads: int
    neurons: int
    hidden: int


@dataclass(frozen=True)
class Shape:
    """What a candidate looks like before its precision is chosen. None: as in the teacher."""

    layers: tuple[int, ...]
    heads: int | None = None
    neurons: int | None = None
    hidden: int | None = None
    technique: Technique = "distil"

    @property
    def name(self) -> str:
        """A readable name, of its own for every shape: L0_5-h6-n384-w192, with -pruned for that technique."""
        words = [f"L{_ranges(self.layers)}"]
        for letter, width in (("h", self.heads), ("n", self.neurons), ("w", self.hidden)):
            if width is not None:
                words.append(f"{letter}{width}")
        if self.technique == "prune":
            words.append("pruned")
        return "-".join(words)


@dataclass(frozen=True)
class Candidate:
    """A shape in a precision: what can become a variant."""

    shape: Shape
    precision: Precision

    @property
    def name(self) -> str:
        """Of the variant."""
        return final_name(self.shape) + SUFFIXES[self.precision]


def final_name(shape: Shape) -> str:
    """Return the variant's name of a fully trained shape in FP32, short enough to take a suffix."""
    name, room = f"search-{shape.name}", LONGEST_NAME - max(map(len, SUFFIXES.values()))
    if len(name) <= room:
        return name
    return f"{name[: room - 7]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def trial_name(shape: Shape) -> str:
    """Return the name of a shape's short training."""
    return f"try-{shape.name}"


@dataclass(frozen=True)
class Space:
    """The choices for each gene, in an order in which neighbours are alike."""

    size: TeacherSize
    layers: tuple[tuple[int, ...], ...]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    hidden: tuple[int, ...]
    techniques: tuple[Technique, ...]
    precisions: tuple[Precision, ...]

    @property
    def last(self) -> tuple[int, ...]:
        """Highest value of every gene; the lowest is 0."""
        genes = (self.layers, self.heads, self.neurons, self.hidden, self.techniques, self.precisions)
        return tuple(len(choices) - 1 for choices in genes)

    def decode(self, genes: Sequence[int]) -> Candidate:
        """Return the candidate that genes stand for. Different genes may stand for the same one."""
        layers, heads, neurons, hidden, technique, precision = (int(gene) for gene in genes)
        shape = Shape(
            self.layers[layers],
            _smaller(self.heads[heads], self.size.heads),
            _smaller(self.neurons[neurons], self.size.neurons),
            _smaller(self.hidden[hidden], self.size.hidden),
            self.techniques[technique],
        )
        return Candidate(self._plain(shape), self.precisions[precision])

    def _plain(self, shape: Shape) -> Shape:
        """Pruning leaves the width of states alone; without heads or neurons to take it is distillation."""
        if shape.technique == "distil":
            return shape
        if shape.heads is None and shape.neurons is None and "distil" in self.techniques:
            return Shape(shape.layers)
        return Shape(shape.layers, shape.heads, shape.neurons, None, "prune")


def space_of(part: SearchSpace, size: TeacherSize) -> Space:
    """Return the choices of a recipe for a teacher of that size.

    Raises:
        RecipeError: when a choice is larger than the teacher, or names a layer that it does not have.
    """
    layers = part.layers or _default_layers(size.depth)
    for chosen in layers:
        if not chosen or list(chosen) != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= size.depth:
            raise RecipeError(
                f"search.space.layers: {list(chosen)} must ascend within 0 to {size.depth - 1}, the layers of"
                " the teacher"
            )
    given = {"heads": part.heads, "neurons": part.neurons, "hidden": part.hidden}
    for name, choices in given.items():
        most, least = getattr(size, name), 8 if name == "hidden" else 1
        if choices is not None and not all(least <= choice <= most for choice in choices):
            raise RecipeError(f"search.space.{name}: {list(choices)} must lie within {least} to {most}")
    return Space(
        size,
        tuple(sorted(set(layers), key=lambda chosen: (len(chosen), chosen))),
        _ascending(part.heads or _shares(size.heads, (0.25, 0.5, 1))),
        _ascending(part.neurons or _shares(size.neurons, (0.125, 0.25, 0.5, 1), multiple=16)),
        _ascending(part.hidden or _shares(size.hidden, (0.5, 1), multiple=8)),
        tuple(dict.fromkeys(part.techniques)),
        tuple(dict.fromkeys(part.precisions)),
    )


def training_part(
    shape: Shape, size: TeacherSize, search: SearchPart, *, parent: str
) -> DistilPart | PrunePart:
    """Return the part of a recipe that trains a shape in full."""
    name = final_name(shape)
    if shape.technique == "distil":
        return DistilPart(
            kind="distil",
            name=name,
            parent=parent,
            layers=shape.layers,
            heads=shape.heads,
            neurons=shape.neurons,
            hidden=shape.hidden,
            distillation=search.distillation,
            extra=search.extra,
            augment=search.augment,
            training=search.full,
        )
    return PrunePart(
        kind="prune",
        name=name,
        parent=parent,
        layers=shape.layers,
        heads=(shape.heads or size.heads) / size.heads,
        neurons=(shape.neurons or size.neurons) / size.neurons,
        distillation=search.distillation,
        extra=search.extra,
        augment=search.augment,
        training=search.full,
    )


def short_part(shape: Shape, size: TeacherSize, search: SearchPart, *, parent: str) -> DistilPart | PrunePart:
    """Return the part that gives a shape its short training."""
    changes = {"name": "candidate", "training": search.short, "augment": None}
    return training_part(shape, size, search, parent=parent).model_copy(update=changes)


def quantize_part(candidate: Candidate, *, parent: str) -> QuantizePart | None:
    """Return the part that gives a candidate its precision, None for FP32."""
    if candidate.precision == "fp32":
        return None
    name = f"{parent}{SUFFIXES[candidate.precision]}"
    return QuantizePart(kind="quantize", name=name, parent=parent, method=METHODS[candidate.precision])


def _default_layers(depth: int) -> tuple[tuple[int, ...], ...]:
    found = []
    for count in range(1, depth + 1):
        step = (depth - 1) / max(count - 1, 1)
        found += [
            tuple(round(place * step) for place in range(count)),
            tuple(range(count)),
            tuple(range(depth - count, depth)),
        ]
    return tuple(dict.fromkeys(found))


def _shares(whole: int, shares: tuple[float, ...], *, multiple: int = 1) -> tuple[int, ...]:
    """Return shares of a width, rounded to a multiple; the whole stays exact."""
    return tuple(
        whole if share == 1 else min(whole, max(multiple, round(share * whole / multiple) * multiple))
        for share in shares
    )


def _ascending(choices: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(choices)))


def _smaller(width: int, whole: int) -> int | None:
    return None if width >= whole else width


def _ranges(layers: tuple[int, ...]) -> str:
    """Return layer numbers in a few characters: 0_2_5, or 0to3_5 where three or more follow each other."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return "_".join(f"{run[0]}to{run[-1]}" if len(run) > 2 else "_".join(map(str, run)) for run in runs)
