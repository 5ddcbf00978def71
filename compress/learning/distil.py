"""Distillation: a student of any depth and width, cut out of its parent, learns a teacher's answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.learning.importance import importance, scored_rows, state_importance
from compress.learning.start import start_of
from compress.learning.teacher import finish_network
from compress.learning.transfer_set import learn_from
from compress.networks.cut import keep_states, shrink
from compress.networks.models import Tokens
from compress.networks.network import Classifier, keep_layers
from compress.recipes.parts import DistilPart, require_layers
from compress.steps import Context, Result
from contract.errors import RecipeError
from runtime.api import Encoder


def distil_student(context: Context) -> Result:
    """Train a student that starts from a part of its parent or of other weights, and write it.

    Layers are those that the recipe names. Where it asks for fewer heads, neurons or states, those that
    matter most to the parent's loss on training texts are kept.

    Raises:
        RecipeError: when the parent has no such layer, or fewer heads, neurons or states than are asked for.
    """
    part = DistilPart.model_validate(context.step.config["variant"])
    start = start_of(context, part)
    encoder, spec = start.encoder, start.spec
    student = start.network if start.sized else _part_of(start.network, context, part, encoder)
    taught = learn_from(context, student, encoder, part)
    told = {"notes": list(start.notes)} if start.notes else {}
    return {**finish_network(context, student, spec), "taught_texts": taught, **told}


def _part_of(parent: Classifier, context: Context, part: DistilPart, encoder: Encoder) -> Classifier:
    """Return the layers of a network that a part names, as narrow as it asks for."""
    _check(part, parent)
    student = keep_layers(parent, part.layers)
    if part.heads is not None or part.neurons is not None or part.hidden is not None:
        context.update(0.0, "scoring what the parent has")
        student = _narrower(student, part, parent, *scored_rows(context, encoder))
    return student


def _check(part: DistilPart, parent: Classifier) -> None:
    require_layers(part, len(parent.shape.layers))
    layers = parent.shape.layers
    limits = {
        "hidden": parent.shape.hidden,
        "heads": min(layers[index].heads for index in part.layers),
        "neurons": min(layers[index].neurons for index in part.layers),
    }
    for name, limit in limits.items():
        wanted = getattr(part, name)
        if wanted is not None and wanted > limit:
            raise RecipeError(
                f"variant {part.name!r}: {name} is {wanted}, its parent {part.parent!r} has {limit}"
            )


def _narrower(
    student: Classifier,
    part: DistilPart,
    parent: Classifier,
    tokens: Tokens,
    targets: NDArray[np.int64],
) -> Classifier:
    precision = part.training.precision
    heads, neurons = importance(parent, tokens, targets, precision=precision)
    kept_heads, kept_neurons = (
        [
            np.arange(len(scores[index]))
            if count is None
            else np.sort(np.argsort(-scores[index], kind="stable")[:count])
            for index in part.layers
        ]
        for scores, count in ((heads, part.heads), (neurons, part.neurons))
    )
    student = shrink(student, kept_heads, kept_neurons, tokens)
    if part.hidden is None or part.hidden == parent.shape.hidden:
        return student
    scores = state_importance(parent, tokens, targets, precision=precision)
    return keep_states(student, np.sort(np.argsort(-scores, kind="stable")[: part.hidden]))
