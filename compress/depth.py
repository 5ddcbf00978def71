"""Layers that a recipe names and a network will not have: found before anything is trained."""

from __future__ import annotations

from compress.networks.weights import depth_of
from compress.recipes.parts import CnnPart, DistilPart, LinearPart, PrunePart, VariantPart, made_by
from compress.recipes.recipe import Recipe
from contract.errors import RecipeError


def require_layers(recipe: Recipe) -> None:
    """Check every layer index of a recipe for texts, following depths from the teacher's weights down.

    Raises:
        RecipeError: naming the variant, its parent and the layers that there are.
    """
    if recipe.data.input == "image":
        return
    depths: dict[str, int | None] = {recipe.teacher.name: depth_of(recipe.teacher.weights)}
    for part in recipe.variants:
        parent = depths.get(part.parent) if part.parent is not None else None
        layers = part.layers if isinstance(part, DistilPart | PrunePart) else None
        for layer in layers or ():
            if parent is not None and not 0 <= layer < parent:
                raise RecipeError(
                    f"variant {part.name!r}: no layer {layer}; "
                    f"its parent {part.parent!r} has 0 to {parent - 1}"
                )
        depth = len(layers) if layers is not None else _inherited(part, parent)
        depths |= dict.fromkeys(made_by(part), depth)


def _inherited(part: VariantPart, parent: int | None) -> int | None:
    return None if isinstance(part, CnnPart | LinearPart) else parent
