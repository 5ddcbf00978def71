"""What a recipe asks of networks that will not have it: found before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compress.datasets.sources import located
from compress.networks.weights import depth_of, foreign_reason
from compress.onnx_graphs.finding import find_graph
from compress.recipes.data_part import SPLITS
from compress.recipes.parts import (
    RANDOM,
    CnnPart,
    DistilPart,
    LatencyPart,
    MagnitudePart,
    NgramPart,
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

if TYPE_CHECKING:
    from compress.onnx_graphs.reading import Reading

_AS_IT_IS = "an ONNX graph is taken as it is"


def require_all_layers(recipe: Recipe) -> None:
    """Check every layer index of a recipe for texts, following depths from the teacher's weights down.

    Raises:
        RecipeError: naming the variant, its parent and the layers that there are; or the variant that would
            have to take a network apart which is not one of ours, or is not here.
    """
    if recipe.data.input == "image":
        return
    depths: dict[str, int] = {}
    if recipe.teacher.elsewhere:
        require_heard(recipe)
    elif (reason := _whole_because(recipe)) is not None:
        require_whole(recipe, reason)
    else:
        depths[recipe.teacher.name] = depth_of(recipe.teacher.weights)
    for part in recipe.variants:
        if isinstance(part, DistilPart) and part.weights is not None:
            depths |= dict.fromkeys(made_by(part), _own_depth(part, part.weights))
            continue
        if isinstance(part, CnnPart | NgramPart) or part.parent not in depths:
            continue
        depth = depths[part.parent]
        if isinstance(part, DistilPart | PrunePart) and part.layers is not None:
            require_layers(part, depth)
            depth = len(part.layers)
        depths |= dict.fromkeys(made_by(part), depth)


def _whole_because(recipe: Recipe) -> str | None:
    """Return why a teacher stays whole, None where it is one of ours. Raises as `require_usable`."""
    given = find_graph(recipe.teacher.weights)
    if given is None:
        return foreign_reason(recipe.teacher.weights)
    from compress.onnx_graphs.reading import read_reading

    require_usable(recipe, read_reading(given))
    return _AS_IT_IS


def _own_depth(part: DistilPart, weights: str) -> int:
    """Return the layers of a student that starts from other weights. Raises RecipeError."""
    if weights == RANDOM:
        return len(part.layers)
    if find_graph(weights) is not None:
        raise RecipeError(
            f"variant {part.name!r}: `weights` is an ONNX graph, which has no layers to start from",
            where=weights,
            hint="the folder that it was exported from, or `weights: random`",
        )
    reason = foreign_reason(weights)
    if reason is not None:
        raise RecipeError(f"variant {part.name!r}: weights: {reason}", where=weights)
    depth = depth_of(weights)
    for layer in part.layers:
        if not 0 <= layer < depth:
            raise RecipeError(f"variant {part.name!r}: no layer {layer}; {weights} has 0 to {depth - 1}")
    return len(part.layers)


def require_usable(recipe: Recipe, reading: Reading) -> None:
    """Check that a recipe asks of an ONNX graph what a graph can do, beyond what `require_whole` checks.

    Raises:
        RecipeError: naming what it asks for.
    """
    teacher = recipe.teacher
    if teacher.training.epochs:
        raise RecipeError(
            "an ONNX graph is not trained: teacher.training.epochs must be 0",
            where=teacher.weights,
            hint="teacher: {weights: ..., training: {epochs: 0}}; or the folder that it was exported from",
        )
    whole = {teacher.name}
    for part in recipe.variants:
        if getattr(part, "parent", None) not in whole:
            continue
        problem = _beyond_a_graph(part, reading)
        if problem is not None:
            raise RecipeError(
                f"variant {part.name!r}: {problem}",
                where=teacher.weights,
                hint="learn from it with `distil` of other `weights`, or `linear`",
            )


def _beyond_a_graph(part: VariantPart, reading: Reading) -> str | None:
    if isinstance(part, MagnitudePart):
        return "'magnitude' trains what it leaves, and an ONNX graph is not trained"
    if isinstance(part, CnnPart) and not reading.words:
        return "'cnn' starts from word embeddings, and the graph has no table of them in floating point"
    if not isinstance(part, QuantizePart):
        return None
    if reading.quantized:
        return "the graph is quantized already; give the one that it was made from"
    if not reading.products:
        return "the graph has no matrix product with constant weights: nothing to quantize"
    if part.method in {"qdq", "fp16"} and reading.contributed:
        told = ", ".join(reading.contributed[:3])
        return f"`method: {part.method}` needs ONNX's own operators alone, and the graph has {told}"
    return None


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
        if parent in whole and not isinstance(part, DistilPart | CnnPart | NgramPart):
            whole |= set(made_by(part))


def require_heard(recipe: Recipe) -> None:
    """Check that a recipe asks for nothing but answers of a teacher that is not here.

    Raises:
        RecipeError: naming the variant, and what it would need of the teacher.
    """
    teacher = recipe.teacher.name
    where = "teacher.answers" if recipe.teacher.remote is None else "teacher.remote"
    _require_own_columns(recipe)
    if recipe.search is not None:
        raise RecipeError(
            "`search` takes its teacher apart, and of this one only answers are known",
            where=where,
            hint="list students by hand: `distil` with `weights` of its own, and what is made from it",
        )
    if not recipe.variants:
        raise RecipeError(
            f"answers make no model (`{where}`): there is no variant to learn them",
            where="variants",
            hint=f"{{name: linear, kind: linear, parent: {teacher}}}",
        )
    for part in recipe.variants:
        parent = getattr(part, "parent", None)
        problem = _needs_network(part) if parent == teacher else None
        if problem is None and (getattr(part, "teacher", None) or parent) == teacher:
            problem = _looks_inside(part) or _asks_more(part)
        if problem is not None:
            raise RecipeError(
                f"variant {part.name!r}: {problem}; of its teacher {teacher!r} only answers are known",
                where=where,
                hint="learn from them with `linear`, or with `distil` from a folder or package as `weights`; "
                "quantize and prune that student",
            )


def _require_own_columns(recipe: Recipe) -> None:
    """Raise RecipeError where the true labels are given as what a teacher said."""
    answers, data = recipe.teacher.answers, recipe.data
    if answers is None or data.label not in answers.columns:
        return
    true = [found for name in ("file", *SPLITS) if (found := getattr(data, name)) is not None]
    if answers.file is None or _place(answers.file) in map(_place, true):
        raise RecipeError(
            f"the column {data.label!r} holds the true labels (data.label), not what a teacher said",
            where="teacher.answers",
            hint="name the column of its answers: {label: COLUMN}, with `file` where they lie apart",
        )


def _place(source: str) -> Path | str:
    return located(source)[0] or source


def _needs_network(part: VariantPart) -> str | None:
    if isinstance(part, NgramPart):
        return None
    if isinstance(part, DistilPart):
        if part.weights is None:
            return "`distil` starts from layers of its parent unless it has `weights`"
        return "`weights: random` reads texts as its parent does" if part.weights == RANDOM else None
    return f"{part.kind!r} needs a network as its parent"


def _asks_more(part: VariantPart) -> str | None:
    if getattr(part, "augment", None) is not None:
        return "`augment` makes texts that only its teacher could answer"
    return None


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
