"""Structured pruning: whole heads and neurons go, so that the network is smaller for every runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.learning.importance import Scores, importance, scored_rows
from compress.learning.teacher import finish_network, parent_classifier, parent_encoder
from compress.learning.transfer_set import learn_from
from compress.networks.cut import shrink
from compress.networks.network import Classifier, keep_layers
from compress.pruning.rounds import epochs_per_round, round_of
from compress.recipes.parts import PrunePart
from compress.steps import Context, Result
from contract.errors import RecipeError

NEURON_GROUP = 16


def prune_network(context: Context) -> Result:
    """Remove layers, then the heads and neurons that matter least, in rounds with training after each.

    After round r of R the share s^(r/R) of heads stays, counted over the layers that stay, so that every
    round removes the same share of what it finds; neurons alike. Epochs: see `epochs_per_round`.

    Raises:
        RecipeError: when the parent is no transformer, or has no such layer.
    """
    part = PrunePart.model_validate(context.step.config["variant"])
    network = parent_classifier(context)
    encoder, spec = parent_encoder(context)
    if part.layers is not None:
        network = keep_layers(network, _ascending(part, len(network.shape.layers)))
    total = _sizes(network)
    rounds = []
    for number, epochs in enumerate(epochs_per_round(part.training.epochs, part.rounds)):
        turn = round_of(context, number, part.rounds)
        turn.update(0.0, "scoring heads and neurons")
        tokens, targets = scored_rows(turn, encoder)
        scores = importance(network, tokens, targets, precision=part.training.precision)
        wanted = [
            round(share ** ((number + 1) / part.rounds) * size)
            for share, size in zip((part.heads, part.neurons), total, strict=True)
        ]
        network = shrink(
            network,
            keep_best(scores[0], wanted[0]),
            keep_best(scores[1], wanted[1], group=NEURON_GROUP),
            tokens,
        )
        if epochs:
            training = part.training.model_copy(update={"epochs": epochs})
            learn_from(turn, network, encoder, part.model_copy(update={"training": training}))
        heads, neurons = _sizes(network)
        rounds.append({"heads": heads, "neurons": neurons, "epochs": epochs})
    return {**finish_network(context, network, spec), "rounds": rounds}


def _ascending(part: PrunePart, depth: int) -> tuple[int, ...]:
    """Return the layers that stay. Raises RecipeError unless they ascend among those that there are."""
    layers = part.layers or ()
    if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= depth:
        raise RecipeError(
            f"variant {part.name!r}: `layers` must ascend within 0 to {depth - 1}, the layers of its parent"
            f" {part.parent!r}; they are {list(layers)}"
        )
    return layers


def _sizes(network: Classifier) -> tuple[int, int]:
    """Return how many heads and neurons there are in all layers."""
    layers = network.shape.layers
    return sum(layer.heads for layer in layers), sum(layer.neurons for layer in layers)


def keep_best(scores: Scores, count: int, *, group: int = 1) -> list[NDArray[np.int64]]:
    """Return per layer the indices that stay, ascending: the best `count`, but at least one, of all layers.

    With a `group`, every layer's count is rounded to a multiple of it (at most what the layer has), since
    matrix kernels work in blocks; where that leaves nothing, the layer with most of the best keeps one group.
    """
    layers = np.repeat(np.arange(len(scores)), [layer.size for layer in scores])
    best = np.argsort(-np.concatenate(scores), kind="stable")[: max(1, count)]
    stay = np.bincount(layers[best], minlength=len(scores))
    groups = [round(count / group) for count in stay]
    if not any(groups):
        groups[int(stay.argmax())] = 1
    return [
        np.sort(np.argsort(-layer, kind="stable")[: many * group])
        for layer, many in zip(scores, groups, strict=True)
    ]
