"""Distillation: a student of any depth and width, cut out of its parent, learns a teacher's answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from compress.learning import learn_from
from compress.models import Tokens
from compress.network import Classifier, keep_layers
from compress.parts import DistilPart
from compress.prune import importance, scored_rows, shrink
from compress.steps import Context, Result
from compress.teacher import finish_network, parent_classifier, parent_encoder
from compress.training import autocast
from contract.errors import RecipeError

SCORE_BATCH = 16


def distil_student(context: Context) -> Result:
    """Train a student that starts from a part of its parent, and write it.

    Layers are those that the recipe names. Where it asks for fewer heads, neurons or states, those that
    matter most to the parent's loss on training texts are kept.

    Raises:
        RecipeError: when the parent has no such layer, or fewer heads, neurons or states than are asked for.
    """
    part = DistilPart.model_validate(context.step.config["variant"])
    parent = parent_classifier(context)
    encoder, spec = parent_encoder(context)
    _check(part, parent)
    student = keep_layers(parent, part.layers)
    if part.heads is not None or part.neurons is not None or part.hidden is not None:
        context.update(0.0, "scoring what the parent has")
        student = _narrower(student, part, parent, *scored_rows(context, encoder))
    taught = learn_from(context, student, encoder, part)
    return {**finish_network(context, student, spec), "taught_texts": taught}


def _check(part: DistilPart, parent: Classifier) -> None:
    layers = parent.shape.layers
    for index in part.layers:
        if not 0 <= index < len(layers):
            raise RecipeError(
                f"variant {part.name!r}: no layer {index}; "
                f"its parent {part.parent!r} has 0 to {len(layers) - 1}"
            )
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
    student = shrink(student, kept_heads, kept_neurons)
    if part.hidden is None or part.hidden == parent.shape.hidden:
        return student
    scores = state_importance(parent, tokens, targets, precision=precision)
    return keep_states(student, np.sort(np.argsort(-scores, kind="stable")[: part.hidden]))


def state_importance(
    network: Classifier, tokens: Tokens, targets: NDArray[np.int64], *, precision: str = "fp32"
) -> NDArray[np.float64]:
    """Return the score [hidden] of every dimension of the states.

    A dimension gets a multiplier of 1 per text and layer; its score is the sum over texts and layers of the
    squared gradient of the loss with respect to it, as for heads and neurons in `compress.prune`.
    """
    scores = np.zeros(network.shape.hidden)
    labels = torch.from_numpy(targets)
    network.eval()
    for start in range(0, len(tokens), SCORE_BATCH):
        rows = np.arange(start, min(start + SCORE_BATCH, len(tokens)))
        ids, mask = tokens.batch(rows)
        with autocast(precision):
            traced = network.trace(ids, mask)
        loss = functional.cross_entropy(traced.logits.float(), labels[rows], reduction="sum")
        for state, slope in zip(traced.states, torch.autograd.grad(loss, traced.states), strict=True):
            moved = (state.detach().double() * slope.double()).sum(dim=1)
            scores += moved.square().sum(dim=0).numpy()
    return scores


def keep_states(network: Classifier, kept: NDArray[np.int64]) -> Classifier:
    """Return a copy whose states have only the given dimensions, in that order: every matrix, norm and table
    is cut accordingly. Heads keep their size and number.
    """
    smaller = Classifier(replace(network.shape, hidden=len(kept)))
    rows = torch.from_numpy(kept)
    state = {}
    for name, tensor in network.state_dict().items():
        cut = tensor
        for axis in _state_axes(name):
            cut = cut.index_select(axis, rows)
        state[name] = cut
    smaller.load_state_dict(state)
    smaller.eval()
    return smaller


def _state_axes(name: str) -> tuple[int, ...]:
    """Return the axes of a tensor of a `Classifier` that run over the dimensions of the states."""
    if name.endswith(("words.weight", "places.weight", "qkv.weight", "widen.weight", "classify.weight")):
        return (1,)
    if name.endswith(("qkv.bias", "widen.bias", "classify.bias")):
        return ()
    return (0, 1) if name == "dense.weight" else (0,)
