"""What a recipe asks of networks that will not have it: found before anything is trained."""

from __future__ import annotations

from compress.networks.weights import depth_of, foreign_reason
from compress.recipes.parts import (
    RANDOM,
    CnnPart,
    DistilPart,
    LatencyPart,
    LinearPart,
    PrunePart,
    QatPart,
    QuantizePart,
    VariantPart,
    VocabularyPart,
    made_by,
    require_layers,
)
from compress.recipes.recipe import Recipe
from contract.errors import RecipeError


def require_all_layers(recipe: Recipe) -> None:
    """Check every layer index of a recipe for texts, following depths from the teacher's weights down.

    Raises:
        RecipeError: naming the variant, its parent and the layers that there are; or the variant that would
            have to take a network apart which is not one of ours.
    """
    if recipe.data.input == "image":
        return
    reason = foreign_reason(recipe.teacher.weights)
    if reason is not None:
        require_whole(recipe, reason)
    depths = {} if reason is not None else {recipe.teacher.name: depth_of(recipe.teacher.weights)}
    for part in recipe.variants:
        if isinstance(part, DistilPart) and part.weights is not None:
            depths |= dict.fromkeys(made_by(part), _own_depth(part, part.weights))
            continue
        if isinstance(part, CnnPart | LinearPart) or part.parent not in depths:
            continue
        depth = depths[part.parent]
        if isinstance(part, DistilPart | PrunePart) and part.layers is not None:
            require_layers(part, depth)
            depth = len(part.layers)
        depths |= dict.fromkeys(made_by(part), depth)


def _own_depth(part: DistilPart, weights: str) -> int:
    """Return the layers of a student that starts from other weights. Raises RecipeError."""
    if weights == RANDOM:
        return len(part.layers)
    reason = foreign_reason(weights)
    if reason is not None:
        raise RecipeError(f"variant {part.name!r}: weights: {reason}", where=weights)
    depth = depth_of(weights)
    for layer in part.layers:
        if not 0 <= layer < depth:
            raise RecipeError(f"variant {part.name!r}: no layer {layer}; {weights} has 0 to {depth - 1}")
    return len(part.layers)


def require_whole(recipe: Recipe, reason: str) -> None:
    """Check that a recipe leaves a teacher of another architecture whole.

    It is exported, quantized, pruned by magnitude and learnt from; what takes layers, heads, neurons, states
    or word pieces out needs our own network.

    Raises:
        RecipeError: naming the variant and why its parent cannot be taken apart.
    """
    whole = {recipe.teacher.name}
    if recipe.search is not None:
        raise RecipeError(
            "`search` takes its teacher apart, and this one stays whole",
            where=recipe.teacher.weights,
            hint=reason,
        )
    for part in recipe.variants:
        parent = getattr(part, "parent", None)
        asked = getattr(part, "teacher", None) or parent
        problem = _takes_apart(part) if parent in whole else None
        if problem is None and asked in whole:
            problem = _looks_inside(part)
        if problem is not None:
            raise RecipeError(
                f"variant {part.name!r}: {problem}; its teacher stays whole: {reason}",
                where=recipe.teacher.weights,
                hint="quantize it, prune it by magnitude, or learn from it with `distil` of other `weights`, "
                "`cnn` or `linear`",
            )
        if parent in whole and not isinstance(part, DistilPart | CnnPart | LinearPart):
            whole |= set(made_by(part))


def _takes_apart(part: VariantPart) -> str | None:
    if isinstance(part, DistilPart):
        return None if part.weights else "`distil` starts from layers of its parent unless it has `weights`"
    if isinstance(part, PrunePart | LatencyPart | VocabularyPart | QatPart):
        return f"{part.kind!r} takes its parent apart"
    if isinstance(part, QuantizePart) and part.smooth is not None:
        return "`smooth` moves weights inside its parent"
    return None


def _looks_inside(part: VariantPart) -> str | None:
    settings = getattr(part, "distillation", None)
    if settings is not None and (settings.hidden_weight or settings.attention_weight):
        return "`hidden_weight` and `attention_weight` imitate what is inside"
    augment = getattr(part, "augment", None)
    if augment is not None and augment.replace:
        return "`augment.replace` reads the teacher's word pieces"
    return None
