"""Every half layer of a network at every width, and networks put together from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from compress.networks.models import Tokens
from compress.networks.network import Classifier, LayerShape
from compress.pruning.obs import Removal, remove_structures, second_moments

Side = Literal["attention", "feed"]
GROUP = 16


@dataclass(frozen=True)
class Half:
    """One half of a layer, at all widths from what it has down to nothing."""

    layer: int
    side: Side
    removal: Removal


def halves_of(network: Classifier, tokens: Tokens, grid: Sequence[int]) -> tuple[Half, ...]:
    """Return the halves in order: every count of heads, and the neuron counts of a grid and its own.

    Args:
        network: stays as it is.
        tokens: texts that the Hessians are made from.
        grid: neuron counts; those beyond what a half has do not apply.
    """
    size, found = network.shape.head_size, []
    for index, (layer, widths, moments) in enumerate(
        zip(network.layers, network.shape.layers, second_moments(network, tokens), strict=True)
    ):
        wanted = sorted({width for width in grid if width <= widths.neurons} | {0, widths.neurons})
        mixed = layer.attention.output if widths.heads else layer.attention
        heads = _removal(mixed, moments[0], range(widths.heads + 1), size=size)
        found += [
            Half(index, "attention", heads),
            Half(index, "feed", _removal(layer.narrow, moments[1], wanted, group=GROUP)),
        ]
    return tuple(found)


def _removal(
    module: nn.Module, moments: Tensor | None, widths: Sequence[int], *, size: int = 1, group: int = 1
) -> Removal:
    """Return a half's last linear layer at all widths, or the bias that stands for it as its only one."""
    bias: Tensor = module.bias.detach()
    if moments is None:
        empty, nothing = torch.zeros(len(bias), 0), np.array([], dtype=np.int64)
        return Removal((0,), (nothing,), (empty,), (bias,), np.zeros(1))
    return remove_structures(module.weight.detach(), bias, moments, widths, size=size, group=group)


def put_together(network: Classifier, halves: Sequence[Half], choice: Sequence[int]) -> Classifier:
    """Return the network whose halves have the width number choice[i] of theirs, in evaluation mode.

    It shares the memory of what is as it was; a copy of its own is `copy.deepcopy` away.
    """
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    size = network.shape.head_size
    layers = [[0, 0] for _ in network.shape.layers]
    for half, number in zip(halves, choice, strict=True):
        removal, prefix = half.removal, f"layers.{half.layer}."
        width, kept = removal.widths[number], removal.kept[number]
        layers[half.layer][half.side == "feed"] = width
        if width == removal.widths[-1]:
            continue
        if half.side == "attention":
            head = torch.from_numpy((kept[:, None] * size + np.arange(size)).reshape(-1))
            thirds = torch.cat([head + third * removal.widths[-1] * size for third in range(3)])
            into, out, empty = "attention.qkv", "attention.output", "attention.bias"
        else:
            thirds = torch.from_numpy(kept)
            into, out, empty = "widen", "narrow", "narrow.bias"
        names = [f"{prefix}{name}.{part}" for name in (into, out) for part in ("weight", "bias")]
        weight, offset = state.pop(names[0]), state.pop(names[1])
        state.pop(names[2]), state.pop(names[3])
        if width == 0:
            state[f"{prefix}{empty}"] = removal.biases[number]
        else:
            parts = (weight[thirds], offset[thirds], removal.weights[number], removal.biases[number])
            state.update(zip(names, parts, strict=True))
    shape = replace(network.shape, layers=tuple(LayerShape(*pair) for pair in layers))
    with torch.device("meta"):
        smaller = Classifier(shape)
    smaller.load_state_dict(state, assign=True)
    smaller.eval()
    return smaller
