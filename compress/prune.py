"""Structured pruning: whole heads and neurons go, so that the network is smaller for every runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from compress.data import DATA, read_dataset
from compress.learning import learn_from
from compress.models import Tokens
from compress.network import Classifier, Gates, LayerShape, keep_layers
from compress.parts import PrunePart
from compress.rounds import epochs_per_round, round_of
from compress.steps import Context, Result
from compress.teacher import finish_network, parent_classifier, parent_encoder
from compress.training import autocast
from contract.errors import RecipeError
from runtime.api import Encoder

SCORED_TEXTS = 256
SCORE_BATCH = 16
NEURON_GROUP = 16

Scores = list[NDArray[np.float64]]


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
        scores = importance(network, *scored_rows(turn, encoder), precision=part.training.precision)
        wanted = [
            round(share ** ((number + 1) / part.rounds) * size)
            for share, size in zip((part.heads, part.neurons), total, strict=True)
        ]
        network = shrink(
            network, keep_best(scores[0], wanted[0]), keep_best(scores[1], wanted[1], group=NEURON_GROUP)
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


def scored_rows(context: Context, encoder: Encoder) -> tuple[Tokens, NDArray[np.int64]]:
    """Return tokens and targets of the training texts that scores are made from."""
    data = read_dataset(context.inputs["data"].file(DATA)).of("train")
    rng = np.random.default_rng(context.recipe.seed)
    rows = np.sort(rng.permutation(len(data))[:SCORED_TEXTS])
    part = data.take(rows)
    return Tokens.of(encoder.encode(part.texts)), part.targets


def importance(
    network: Classifier, tokens: Tokens, targets: NDArray[np.int64], *, precision: str = "fp32"
) -> tuple[Scores, Scores]:
    """Return per layer the score of every head and neuron: the diagonal of the empirical Fisher information.

    Each head and neuron gets a multiplier of 1 per text; its score is the sum over texts of the squared
    gradient of the loss with respect to that multiplier (Kwon et al. 2022, "A fast post-training pruning
    framework for transformers", equation 7).
    """
    layers = network.shape.layers
    heads: Scores = [np.zeros(layer.heads) for layer in layers]
    neurons: Scores = [np.zeros(layer.neurons) for layer in layers]
    labels = torch.from_numpy(targets)
    network.eval()
    for start in range(0, len(tokens), SCORE_BATCH):
        rows = np.arange(start, min(start + SCORE_BATCH, len(tokens)))
        gates = Gates(
            tuple(torch.ones(len(rows), layer.heads, requires_grad=True) for layer in layers),
            tuple(torch.ones(len(rows), layer.neurons, requires_grad=True) for layer in layers),
        )
        with autocast(precision):
            logits = network(*tokens.batch(rows), gates)
        loss = functional.cross_entropy(logits.float(), labels[rows], reduction="sum")
        wanted = [gate for gate in (*gates.heads, *gates.neurons) if gate.numel()]
        gradients = iter(torch.autograd.grad(loss, wanted))
        for scores, group in ((heads, gates.heads), (neurons, gates.neurons)):
            for index, gate in enumerate(group):
                if gate.numel():
                    scores[index] += next(gradients).double().square().sum(0).numpy()
    return heads, neurons


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


def shrink(
    network: Classifier, heads: Sequence[NDArray[np.int64]], neurons: Sequence[NDArray[np.int64]]
) -> Classifier:
    """Return a copy that has only the given heads and neurons of each layer."""
    size = network.shape.head_size
    widths = tuple(LayerShape(len(h), len(n)) for h, n in zip(heads, neurons, strict=True))
    smaller = Classifier(replace(network.shape, layers=widths))
    state = network.state_dict()
    for index, (kept_heads, kept_neurons) in enumerate(zip(heads, neurons, strict=True)):
        old = network.shape.layers[index]
        channels = torch.from_numpy((kept_heads[:, None] * size + np.arange(size)).reshape(-1))
        name = f"layers.{index}."
        bias = state.pop(f"{name}attention.output.bias") if old.heads else state.pop(f"{name}attention.bias")
        if old.heads:
            weight, offset = state.pop(f"{name}attention.qkv.weight"), state.pop(f"{name}attention.qkv.bias")
            mixed = state.pop(f"{name}attention.output.weight")
        if len(kept_heads):
            thirds = torch.cat([channels + third * old.heads * size for third in range(3)])
            state[f"{name}attention.qkv.weight"] = weight[thirds]
            state[f"{name}attention.qkv.bias"] = offset[thirds]
            state[f"{name}attention.output.weight"] = mixed[:, channels]
            state[f"{name}attention.output.bias"] = bias
        else:
            state[f"{name}attention.bias"] = bias
        if old.neurons:
            rows = torch.from_numpy(kept_neurons)
            widen = {part: state.pop(f"{name}widen.{part}") for part in ("weight", "bias")}
            narrow = state.pop(f"{name}narrow.weight")
            if len(kept_neurons):
                state.update({f"{name}widen.{part}": tensor[rows] for part, tensor in widen.items()})
                state[f"{name}narrow.weight"] = narrow[:, rows]
    smaller.load_state_dict(state)
    smaller.eval()
    return smaller
