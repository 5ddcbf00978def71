"""SmoothQuant (Xiao et al. 2023): outliers of activations moved into the weights that read them.

For the input X and weight W of a linear layer, channel j is scaled by
s_j = max|X_j|^alpha / max|W_j|^(1 - alpha): X_j / s_j and W_j s_j have the same product and, for the right
alpha, ranges that INT8 holds equally well.

The paper folds 1/s into the normalisation before the layer. In a network that is normalised after each half,
that output is also what the residual carries on, so there the division stays: one multiplication per
input. The input of `attention.output` is a mean of values, so its division is folded into the value
projection. The input of `narrow` comes out of the activation function and cannot be folded: it is
multiplied too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from compress.learning.training import autocast
from compress.networks.models import Examples
from compress.networks.network import Attention, Classifier

LEAST = 1e-5
BATCH = 32


class Smoothed(nn.Module):
    """A linear layer whose input is multiplied by a vector first."""

    def __init__(self, linear: nn.Linear, factors: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("factors", factors)
        self.factors: Tensor

    def forward(self, states: Tensor) -> Tensor:
        """Return [..., out] of states [..., in]."""
        found: Tensor = self.linear(states * self.factors)
        return found


def linears_of(network: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers inside a classifier's layers by name, in the order in which they run."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("layers.")
    }


def smooth(network: Classifier, examples: Examples, alpha: float) -> Classifier:
    """Return a copy that gives the same answers from activations that are easier to quantize.

    Args:
        network: stays as it is.
        examples: calibration texts.
        alpha: share of the difficulty moved to the weights: at 1 activations get even peaks, at 0 weights do.
    """
    smoothed = copy.deepcopy(network)
    smoothed.eval()
    peaks = _peaks(smoothed, examples)
    with torch.no_grad():
        for layer in smoothed.layers:
            if isinstance(layer.attention, Attention):
                _fold_values(layer.attention, _factors(layer.attention.output, peaks, alpha))
        for name, linear in linears_of(smoothed).items():
            if name.endswith("attention.output"):
                continue
            scale = _factors(linear, peaks, alpha)
            linear.weight.mul_(scale)
            parent, _, own = name.rpartition(".")
            setattr(smoothed.get_submodule(parent), own, Smoothed(linear, 1 / scale))
    return smoothed


def _factors(linear: nn.Linear, peaks: dict[nn.Linear, Tensor], alpha: float) -> Tensor:
    activation = peaks[linear].clamp(min=LEAST)
    weight = linear.weight.abs().amax(dim=0).clamp(min=LEAST)
    scale = activation**alpha / weight ** (1 - alpha)
    return (scale / scale.log().mean().exp()).clamp(min=LEAST)


def _fold_values(attention: Attention, scale: Tensor) -> None:
    width = attention.heads * attention.head_size
    attention.qkv.weight[2 * width :].div_(scale[:, None])
    attention.qkv.bias[2 * width :].div_(scale)
    attention.output.weight.mul_(scale)


def _peaks(network: Classifier, examples: Examples) -> dict[nn.Linear, Tensor]:
    """Return max|X_j| [in] of every linear layer's input, real tokens of texts one by one."""
    peaks: dict[nn.Linear, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Linear)
        found = inputs[0].detach().abs().flatten(0, -2).amax(dim=0)
        peaks[module] = torch.maximum(peaks[module], found) if module in peaks else found

    handles = [linear.register_forward_pre_hook(note) for linear in linears_of(network).values()]
    try:
        with torch.inference_mode(), autocast("fp32"):
            for batch in _one_by_one(examples):
                network(*batch)
    finally:
        for handle in handles:
            handle.remove()
    return {module: peak.clone() for module, peak in peaks.items()}


def _one_by_one(examples: Examples) -> Iterator[tuple[Tensor, ...]]:
    for row in range(len(examples)):
        yield examples.batch(np.array([row]))
