"""How much heads, neurons and states matter to a network's loss: what pruning and narrow students keep."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from compress.datasets.data import DATA, read_dataset
from compress.learning.training import autocast
from compress.networks.models import Tokens
from compress.networks.network import Classifier, Gates
from compress.steps import Context
from runtime.api import Encoder

SCORED_TEXTS = 256
SCORE_BATCH = 16

Scores = list[NDArray[np.float64]]


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


def state_importance(
    network: Classifier, tokens: Tokens, targets: NDArray[np.int64], *, precision: str = "fp32"
) -> NDArray[np.float64]:
    """Return the score [hidden] of every dimension of the states.

    A dimension gets a multiplier of 1 per text and layer; its score is the sum over texts and layers of the
    squared gradient of the loss with respect to it, as for heads and neurons.
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
        # A layer without heads and neurons passes on the very states that it was given.
        states = tuple({id(state): state for state in traced.states}.values())
        for state, slope in zip(states, torch.autograd.grad(loss, states), strict=True):
            moved = (state.detach().double() * slope.double()).sum(dim=1)
            scores += moved.square().sum(dim=0).numpy()
    return scores
