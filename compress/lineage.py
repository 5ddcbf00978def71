"""What every variant of a recipe is made from, by which technique, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

from compress.recipes.parts import LatencyPart, QatPart, QuantizePart, VariantPart, made_by
from compress.recipes.recipe import Recipe
from contract.family import VariantKind

TWIN = "twin"
KINDS: dict[str, VariantKind] = {
    "teacher": "teacher",
    "remote": "remote",
    "distil": "distilled",
    "cnn": "distilled",
    TWIN: "scratch",
    "prune": "pruned",
    "latency": "pruned",
    "magnitude": "pruned",
    "channels": "pruned",
    "vocabulary": "pruned",
    "quantize": "quantized",
    "qat": "quantized",
    "linear": "linear",
    "deep_table": "deep_table",
}


@dataclass(frozen=True)
class Lineage:
    """Where a variant comes from: the technique that makes it, and the variant that it is made from.

    `skipped` are the techniques of unlisted variants between the two, the first one first.
    """

    technique: str
    parent: str | None = None
    skipped: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """All techniques that a variant differs from its parent by."""
        return " + ".join(dict.fromkeys((*self.skipped, self.technique)))


def lineages_of(recipe: Recipe) -> dict[str, Lineage]:
    """Return the lineage of every variant of a recipe's family, the teacher first where it is one.

    What is made from an unlisted variant has the nearest listed one before it as its parent; what is made
    from nothing but a teacher's answers has none.
    """
    elsewhere = recipe.teacher.only_heard
    technique = "teacher" if recipe.teacher.remote is None else "remote"
    found = {} if elsewhere else {recipe.teacher.name: Lineage(technique)}
    for part in recipe.variants:
        found |= _lineages(part)

    def from_listed(lineage: Lineage) -> Lineage:
        while lineage.parent is not None and lineage.parent in recipe.unlisted:
            before = found[lineage.parent]
            lineage = replace(lineage, parent=before.parent, skipped=(before.technique, *lineage.skipped))
        return (
            replace(lineage, parent=None) if elsewhere and lineage.parent == recipe.teacher.name else lineage
        )

    return {name: from_listed(lineage) for name, lineage in found.items() if name not in recipe.unlisted}


def lowerings_of(recipe: Recipe) -> dict[str, dict[str, float | int | str]]:
    """Return the settings that decide a lowered variant's precision, by variant; others have none."""
    return {
        part.name: _lowering(part) for part in recipe.variants if isinstance(part, QuantizePart | QatPart)
    }


def _lowering(part: QuantizePart | QatPart) -> dict[str, float | int | str]:
    told = part.model_dump(include={"method", "smooth", "mixed", "calibration"}, exclude_none=True)
    if part.method in {"dynamic", "fp16"} and "smooth" not in told:
        told.pop("calibration", None)
    return told


def _lineages(part: VariantPart) -> dict[str, Lineage]:
    names = made_by(part)
    if isinstance(part, LatencyPart):
        chain = zip(names, (part.parent, *names), strict=False)
        return {name: Lineage(part.kind, before) for name, before in chain}
    own, *twins = names
    return {own: Lineage(part.kind, part.parent)} | {twin: Lineage(TWIN) for twin in twins}
