"""Layers that a recipe names and a network will not have: found before anything is trained."""

from __future__ import annotations

from compress.networks.weights import depth_of
from compress.recipes.parts import CnnPart, DistilPart, LinearPart, PrunePart, made_by, require_layers
from compress.recipes.recipe import Recipe


def require_all_layers(recipe: Recipe) -> None:
    """Check every layer index of a recipe for texts, following depths from the teacher's weights down.

    Raises:
        RecipeError: naming the variant, its parent and the layers that there are.
    """
    if recipe.data.input == "image":
        return
    depths = {recipe.teacher.name: depth_of(recipe.teacher.weights)}
    for part in recipe.variants:
        if isinstance(part, CnnPart | LinearPart) or part.parent not in depths:
            continue
        depth = depths[part.parent]
        if isinstance(part, DistilPart | PrunePart) and part.layers is not None:
            require_layers(part, depth)
            depth = len(part.layers)
        depths |= dict.fromkeys(made_by(part), depth)
