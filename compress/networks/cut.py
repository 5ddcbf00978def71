"""Smaller copies of a network: with some of its heads, neurons or states only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from compress.networks.models import Tokens
from compress.networks.network import Classifier, LayerShape

Side = Literal["attention", "feed"]
EMBEDDING_NORM = "embedding_norm"
FOLDED_ROWS = 4096
BATCH = 32
LEAST_VARIANCE = 1e-12
_PARTS: dict[Side, tuple[str, ...]] = {
    "attention": ("attention.qkv", "attention.output"),
    "feed": ("widen", "narrow"),
}
_NORMS: dict[Side, str] = {"attention": "attention_norm", "feed": "output_norm"}


def norm_of(layer: int, side: Side) -> str:
    """Return the name of the normalisation after one half of a layer."""
    return f"layers.{layer}.{_NORMS[side]}"


def inner_channels(side: Side, kept: NDArray[np.int64], head_size: int) -> Tensor:
    """Return where the heads or neurons that stay are among the inputs of a half's last linear layer."""
    if side == "attention":
        kept = (kept[:, None] * head_size + np.arange(head_size)).reshape(-1)
    return torch.from_numpy(kept)


def narrow_half(
    state: dict[str, Tensor], layer: int, side: Side, channels: Tensor, weight: Tensor, bias: Tensor
) -> None:
    """Leave some of the inner channels of a half, in a network's weights by name.

    Args:
        state: changed.
        channels: [K] ascending, as `inner_channels` gives them.
        weight, bias: [hidden, K] and [hidden] of the half's last linear layer from now on.
    """
    into, out = (f"layers.{layer}.{part}" for part in _PARTS[side])
    rows = channels
    if side == "attention":
        third = len(state[f"{into}.bias"]) // 3
        rows = torch.cat([channels + third * number for number in range(3)])
    for part in ("weight", "bias"):
        state[f"{into}.{part}"] = state[f"{into}.{part}"][rows]
    state[f"{out}.weight"], state[f"{out}.bias"] = weight, bias


def drop_half(
    state: dict[str, Tensor],
    layer: int,
    side: Side,
    before: str,
    bias: Tensor,
    rows: Tensor,
    epsilon: float,
) -> Tensor:
    """Take a half and its normalisation out of a network's weights by name.

    Without heads or neurons a half adds a constant to states that were normalised just before, and
    normalises them again. Over the rows that is nearly a gain and an offset per channel, by least squares;
    the normalisation before takes both.

    Args:
        state: changed.
        before: the name of the normalisation whose output the half reads.
        bias: [hidden] the constant.
        rows: [N, hidden] of that output.
        epsilon: of the normalisation that goes.

    Returns:
        the rows as the normalisation before makes them now.
    """
    after = norm_of(layer, side)
    for part in _PARTS[side]:
        del state[f"layers.{layer}.{part}.weight"], state[f"layers.{layer}.{part}.bias"]
    weights = state.pop(f"{after}.weight"), state.pop(f"{after}.bias")
    wanted = functional.layer_norm(rows + bias, bias.shape, *weights, eps=epsilon)
    centre, aim = rows.mean(0), wanted.mean(0)
    spread = (rows - centre).square().mean(0).clamp_min(LEAST_VARIANCE)
    gain = ((rows - centre) * (wanted - aim)).mean(0) / spread
    offset = aim - gain * centre
    state[f"{before}.weight"] = state[f"{before}.weight"] * gain
    state[f"{before}.bias"] = state[f"{before}.bias"] * gain + offset
    return rows * gain + offset


def normed_rows(network: Classifier, tokens: Tokens) -> dict[str, Tensor]:
    """Return what every normalisation makes of up to FOLDED_ROWS tokens, by its name: [N, hidden]."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    seen, rows = torch.empty(0), 0

    def collect(name: str, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(lambda *call: found[name].append(call[2][seen].float()))

    handles = [
        collect(name, module) for name, module in network.named_modules() if isinstance(module, nn.LayerNorm)
    ]
    network.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(tokens), BATCH):
                ids, mask = tokens.batch(np.arange(start, min(start + BATCH, len(tokens))))
                seen = mask.bool()
                network(ids, mask)
                rows += int(seen.sum())
                if rows >= FOLDED_ROWS:
                    break
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts)[:FOLDED_ROWS] for name, parts in found.items()}


def shrink(
    network: Classifier,
    heads: Sequence[NDArray[np.int64]],
    neurons: Sequence[NDArray[np.int64]],
    tokens: Tokens,
) -> Classifier:
    """Return a copy that has only the given heads and neurons of each layer.

    Args:
        network: stays as it is.
        heads, neurons: per layer, ascending; where there are none, the half goes.
        tokens: texts like those it will see, of which a sample decides what is put in such a half's place.
    """
    widths = tuple(LayerShape(len(h), len(n)) for h, n in zip(heads, neurons, strict=True))
    smaller = Classifier(replace(network.shape, layers=widths))
    state, before = dict(network.state_dict()), EMBEDDING_NORM
    rows = normed_rows(network, tokens) if any(0 in (w.heads, w.neurons) for w in widths) else {}
    for index, (kept_heads, kept_neurons) in enumerate(zip(heads, neurons, strict=True)):
        halves: tuple[tuple[Side, NDArray[np.int64]], ...] = (
            ("attention", kept_heads),
            ("feed", kept_neurons),
        )
        for side, kept in halves:
            out = f"layers.{index}.{_PARTS[side][1]}"
            if f"{out}.weight" not in state:
                continue
            weight, bias = state[f"{out}.weight"], state[f"{out}.bias"]
            if len(kept):
                columns = inner_channels(side, kept, network.shape.head_size)
                narrow_half(state, index, side, columns, weight[:, columns], bias)
                before = norm_of(index, side)
            else:
                rows[before] = drop_half(
                    state, index, side, before, bias, rows[before], network.shape.norm_epsilon
                )
    smaller.load_state_dict(state)
    smaller.eval()
    return smaller


def keep_states(network: Classifier, kept: NDArray[np.int64]) -> Classifier:
    """Return a copy whose states have only the given dimensions, in that order.

    Every matrix, norm and table is cut accordingly. Heads keep their size and number.
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
