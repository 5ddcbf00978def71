"""EfficientNet-Lite (Tan and Le 2019; Liu 2020): the network that its published weights fit."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-3
MOMENTUM = 0.01
DROPOUT = 0.2
STEM, HEAD = 32, 1280
# Of Lite0: kernel, repeats, channels in, channels out, widening, stride of the first repeat.
STAGES = (
    (3, 1, 32, 16, 1, 1),
    (3, 2, 16, 24, 6, 2),
    (5, 2, 24, 40, 6, 2),
    (3, 3, 40, 80, 6, 2),
    (5, 3, 80, 112, 6, 1),
    (5, 4, 112, 192, 6, 2),
    (3, 1, 192, 320, 6, 1),
)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: to ceil(size / stride), an odd pixel after the image.

    Args:
        size: height and width that it is built for.
    """

    def __init__(
        self, into: int, out: int, kernel: int, size: tuple[int, int], *, stride: int = 1, groups: int = 1
    ) -> None:
        pads = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size]
        even = all(pad % 2 == 0 for pad in pads)
        padding = (pads[0] // 2, pads[1] // 2) if even else (0, 0)
        super().__init__(into, out, kernel, stride, padding, groups=groups, bias=False)
        self.before = None if even else [pads[1] // 2, -(-pads[1] // 2), pads[0] // 2, -(-pads[0] // 2)]

    def forward(self, states: Tensor) -> Tensor:
        """Return [B, out, ceil(height / stride), ceil(width / stride)]."""
        if self.before is not None:
            states = functional.pad(states, self.before)
        result: Tensor = super().forward(states)
        return result


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


class Block(nn.Module):
    """A widened depthwise convolution between two pointwise ones, with a skip where shapes allow."""

    def __init__(
        self, into: int, out: int, kernel: int, widen: int, stride: int, size: tuple[int, int]
    ) -> None:
        super().__init__()
        inner = into * widen
        if widen != 1:
            self.expand_conv = SameConv(into, inner, 1, size)
            self.bn0 = _norm(inner)
        self.widened = widen != 1
        self.depthwise_conv = SameConv(inner, inner, kernel, size, stride=stride, groups=inner)
        self.bn1 = _norm(inner)
        self.project_conv = SameConv(inner, out, 1, size)
        self.bn2 = _norm(out)
        self.activation = nn.ReLU6()
        self.skips = stride == 1 and into == out

    def forward(self, states: Tensor) -> Tensor:
        """Return the next states."""
        inner = self.activation(self.bn0(self.expand_conv(states))) if self.widened else states
        inner = self.activation(self.bn1(self.depthwise_conv(inner)))
        result: Tensor = self.bn2(self.project_conv(inner))
        return states + result if self.skips else result


class EfficientNetLite0(nn.Module):
    """Images [B, 3, height, width] in, logits [B, classes] out."""

    def __init__(self, classes: int, height: int, width: int) -> None:
        super().__init__()
        size = (height, width)
        self.conv_stem = SameConv(3, STEM, 3, size, stride=2)
        self.bn0 = _norm(STEM)
        size = _halved(size, 2)
        blocks = []
        for kernel, repeats, into, out, widen, stride in STAGES:
            for repeat in range(repeats):
                step = 1 if repeat else stride
                blocks.append(Block(out if repeat else into, out, kernel, widen, step, size))
                size = _halved(size, step)
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = SameConv(STAGES[-1][3], HEAD, 1, size)
        self.bn1 = _norm(HEAD)
        self.activation = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(DROPOUT)
        self.fc = nn.Linear(HEAD, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        states = self.activation(self.bn0(self.conv_stem(pixels)))
        for block in self.blocks:
            states = block(states)
        states = self.activation(self.bn1(self.conv_head(states)))
        logits: Tensor = self.fc(self.dropout(self.pool(states).flatten(1)))
        return logits


def _halved(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return (-(-size[0] // stride), -(-size[1] // stride))


def load_published(network: EfficientNetLite0, state: Mapping[str, Tensor]) -> bool:
    """Put the published weights into a network; return whether its head fits the classes too.

    Where it does not, the head starts from small random weights.
    """
    own = {re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in state.items()}
    fits = tuple(own["fc.weight"].shape) == tuple(network.fc.weight.shape)
    if not fits:
        own |= {f"fc.{name}": tensor for name, tensor in network.fc.state_dict().items()}
    network.load_state_dict(own)
    if not fits:
        nn.init.normal_(network.fc.weight, std=0.01)
        with torch.no_grad():
            network.fc.bias.zero_()
    return fits
