"""Smaller copies of a network: with some of its heads, neurons or states only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from compress.networks.network import Classifier, LayerShape


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
