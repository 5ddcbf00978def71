"""Quantization-aware training: a network that learns with the rounding that INT8 will do to it.

Weights are rounded per output channel and inputs per tensor, as `compress.graphs.qdq` and ONNX Runtime's
DynamicQuantizeLinear round them; the gradient passes through as if nothing had been rounded (the
straight-through estimator of Bengio et al. 2013), but not beyond the range of a static scale.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.graphs.calibration import Range
from compress.graphs.qdq import LEVELS, SMALLEST_SCALE
from compress.learning.teacher import finish_network, parent_encoder
from compress.learning.transfer_set import learn_from
from compress.networks.models import Network, load_network
from compress.networks.network import Classifier
from compress.recipes.parts import QatPart
from compress.steps import Context, Result

Method = Literal["dynamic", "static"]
EMA = 0.98


def train_quantized(context: Context) -> Result:
    """Train a copy of the parent as if it were quantized; the weights written are rounded, in FP32.

    Raises:
        RecipeError: data that cannot be learnt from.
    """
    part = QatPart.model_validate(context.step.config["variant"])
    encoder, spec = parent_encoder(context)
    network = copy.deepcopy(load_network(context.inputs["parent"].folder))
    with fake_quantized(network, part.method) as inputs:
        learn_from(context, network, encoder, part)
        ranges = [item.range for item in inputs.values()]
    result = finish_network(context, network, spec)
    return result if part.method == "dynamic" else {**result, "ranges": ranges}


def products_in(network: Network) -> dict[str, nn.Module]:
    """Return the modules that the quantizer will quantize, by name, in the order in which they run.

    Of a transformer the linear layers inside its layers; of other networks all linear and convolution layers
    but the last, which decides the answer.
    """
    found: dict[str, nn.Module] = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    }
    if isinstance(network, Classifier):
        return {name: module for name, module in found.items() if name.startswith("layers.")}
    return dict(list(found.items())[:-1])


@contextmanager
def fake_quantized(network: Network, method: Method) -> Iterator[dict[str, FakeInput]]:
    """Let a network compute with rounded weights and inputs; afterwards its weights are the rounded ones.

    Yields what rounds the inputs, by the name of the module.
    """
    modules = products_in(network)
    with real_places(network) as places:
        inputs = {name: FakeInput(method, places) for name in modules}
        handles = []
        for name, module in modules.items():
            parametrize.register_parametrization(module, "weight", FakeWeight())
            handles.append(module.register_forward_pre_hook(inputs[name]))
        try:
            yield inputs
        finally:
            for handle in handles:
                handle.remove()
            for module in modules.values():
                parametrize.remove_parametrizations(module, "weight")


@dataclass
class Places:
    """Which places of the batch under way hold a token: [B, T], or None where a network has no padding."""

    mask: Tensor | None = None

    def real(self, values: Tensor) -> Tensor:
        """Return values [B, T, ...] with 0, which every range holds, where there is no token."""
        if self.mask is None or values.shape[:2] != self.mask.shape:
            return values.detach()
        return values.detach().masked_fill(~self.mask[:, :, None], 0.0)


@contextmanager
def real_places(network: Network) -> Iterator[Places]:
    """Note the mask of every batch that a transformer is given; padding must not widen a range."""
    places = Places()
    if not isinstance(network, Classifier):
        yield places
        return

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(input_ids: Tensor, attention_mask: Tensor, *rest: Any) -> Any:
            places.mask = attention_mask.bool()
            return method(input_ids, attention_mask, *rest)

        return call

    asked = ("forward", "trace")
    for name in asked:
        setattr(network, name, noting(getattr(network, name)))
    try:
        yield places
    finally:
        for name in asked:
            delattr(network, name)


class FakeWeight(nn.Module):
    """Rounds a weight [out, ...] to symmetric INT8, one scale per output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight, with the gradient of the weight."""
        rest = tuple(range(1, weight.dim()))
        scale = (weight.detach().abs().amax(dim=rest, keepdim=True) / LEVELS).clamp(min=SMALLEST_SCALE)
        rounded = (weight.detach() / scale).round().clamp(-LEVELS, LEVELS) * scale
        return weight + (rounded - weight.detach())


@dataclass
class FakeInput:
    """Rounds the input of a module to UINT8.

    dynamic: by the range of each text, as a graph that is served one text at a time does. static: by an
    exponential moving average of the range over batches.
    """

    method: Method
    places: Places = field(default_factory=Places)
    low: float = 0.0
    high: float = 0.0
    seen: bool = False

    @property
    def range(self) -> Range:
        """The range that a static graph should use."""
        return self.low, self.high

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the rounded input, as a forward pre-hook."""
        values, *rest = inputs
        real = self.places.real(values)
        if self.method == "dynamic":
            return (round_within(values, *ranges_per_text(real)), *rest)
        if module.training:
            self._learn(float(real.amin()), float(real.amax()))
        low, high = values.new_tensor(self.low), values.new_tensor(self.high)
        return (round_within(values, low, high), *rest)

    def _learn(self, low: float, high: float) -> None:
        keep = EMA if self.seen else 0.0
        self.low = keep * self.low + (1 - keep) * min(low, 0.0)
        self.high = keep * self.high + (1 - keep) * max(high, 0.0)
        self.seen = True


def ranges_per_text(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return least and greatest value of each text [B, 1, ...] of values [B, ...], widened to hold 0."""
    rest, seen = tuple(range(1, values.dim())), values.detach()
    return seen.amin(dim=rest, keepdim=True).clamp(max=0), seen.amax(dim=rest, keepdim=True).clamp(min=0)


def round_within(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return values rounded to UINT8 over a range that holds 0; the gradient is 1 inside it and 0 outside."""
    scale = ((high - low).float() / 255).clamp(min=SMALLEST_SCALE)
    zero = (-low / scale).round().clamp(0, 255)
    inside = values.float().clamp(scale * -zero, scale * (255 - zero))
    rounded = ((inside.detach() / scale).round() + zero).clamp(0, 255)
    return inside + ((rounded - zero) * scale - inside.detach())
