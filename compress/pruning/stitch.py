"""Every half layer of a network at every width, and networks put together from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from compress.networks.cut import (
    EMBEDDING_NORM,
    Side,
    drop_half,
    inner_channels,
    narrow_half,
    norm_of,
    normed_rows,
)
from compress.networks.models import Tokens
from compress.networks.network import Classifier, LayerShape
from compress.pruning.obs import Removal, remove_structures, second_moments

GROUP = 16


@dataclass(frozen=True)
class Half:
    """One half of a layer, at all widths from what it has down to nothing.

    Attributes:
        layer, side: which.
        removal: its last linear layer at these widths.
        reads: [N, hidden] the states that come into it, over the tokens of some texts.
    """

    layer: int
    side: Side
    removal: Removal
    reads: Tensor


def halves_of(network: Classifier, tokens: Tokens, grid: Sequence[int]) -> tuple[Half, ...]:
    """Return the halves in order: every count of heads, and the neuron counts of a grid and its own.

    Args:
        network: stays as it is.
        tokens: texts that the Hessians are made from.
        grid: neuron counts; those beyond what a half has do not apply.
    """
    size, before, found = network.shape.head_size, EMBEDDING_NORM, []
    rows = normed_rows(network, tokens)
    for index, (layer, widths, moments) in enumerate(
        zip(network.layers, network.shape.layers, second_moments(network, tokens), strict=True)
    ):
        wanted = sorted({width for width in grid if width <= widths.neurons} | {0, widths.neurons})
        mixed = layer.attention.output if widths.heads else None
        heads = _removal(mixed, moments[0], range(widths.heads + 1), size=size)
        found.append(Half(index, "attention", heads, rows[before]))
        before = norm_of(index, "attention") if widths.heads else before
        neurons = _removal(layer.narrow, moments[1], wanted, group=GROUP)
        found.append(Half(index, "feed", neurons, rows[before]))
        before = norm_of(index, "feed") if widths.neurons else before
    return tuple(found)


def _removal(
    last: nn.Linear | None, moments: Tensor | None, widths: Sequence[int], *, size: int = 1, group: int = 1
) -> Removal:
    """Return a half's last linear layer at all widths; where there is no half, no width is the only one."""
    if last is None or moments is None:
        return Removal(
            (0,), (np.array([], dtype=np.int64),), (torch.zeros(0, 0),), (torch.zeros(0),), np.zeros(1)
        )
    return remove_structures(
        last.weight.detach(), last.bias.detach(), moments, widths, size=size, group=group
    )


def put_together(network: Classifier, halves: Sequence[Half], choice: Sequence[int]) -> Classifier:
    """Return the network whose halves have the width number choice[i] of theirs, in evaluation mode.

    It shares the memory of what is as it was; a copy of its own is `copy.deepcopy` away.
    """
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    before = EMBEDDING_NORM
    folded: Tensor | None = None
    layers = [[0, 0] for _ in network.shape.layers]
    for half, number in zip(halves, choice, strict=True):
        removal, width = half.removal, half.removal.widths[number]
        layers[half.layer][half.side == "feed"] = width
        if removal.widths[-1] == 0:
            continue
        if width == 0:
            rows = half.reads if folded is None else folded
            bias, epsilon = removal.biases[number], network.shape.norm_epsilon
            folded = drop_half(state, half.layer, half.side, before, bias, rows, epsilon)
            continue
        before, folded = norm_of(half.layer, half.side), None
        if width < removal.widths[-1]:
            channels = inner_channels(half.side, removal.kept[number], network.shape.head_size)
            narrow_half(
                state, half.layer, half.side, channels, removal.weights[number], removal.biases[number]
            )
    shape = replace(network.shape, layers=tuple(LayerShape(*pair) for pair in layers))
    with torch.device("meta"):
        smaller = Classifier(shape)
    smaller.load_state_dict(state, assign=True)
    smaller.eval()
    return smaller
