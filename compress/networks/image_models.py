"""Image classifiers: any torch module from pixels to logits, saved as tensors and a record of widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from compress.code_version import code_of, code_version
from compress.networks.efficientnet import EfficientNetLite0, load_published
from compress.networks.image_weights import EFFICIENTNET, SMALL_CNN, efficientnet_state, user_function
from compress.networks.models import Examples, GraphInputs, Network, filling, read_shape, write_network
from contract.errors import RecipeError
from runtime.api import Encoded, Encoder
from runtime.pixels import PIXELS, PixelEncoder

KIND = "image"
PROBED_BATCHES = (1, 3, 8)

# Whole numbers that a module holds about its own shape, by module name.
Widths = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class ImageArchitecture:
    """What brings back an image classifier, but for its weights.

    Attributes:
        source: where the module comes from; see `compress.networks.image_weights`.
        fingerprint: hash of what stood behind the source.
        classes, channels, height, width: of logits and images.
        widths: attributes that pruning has changed since the module was made.
    """

    source: str
    fingerprint: str
    classes: int
    channels: int
    height: int
    width: int
    widths: Widths = field(default_factory=dict)


@dataclass(frozen=True)
class Pixels:
    """N images. values: [N, channels, height, width] float32; lengths: [N]."""

    values: NDArray[np.float32]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor]:
        """Return some images [B, channels, height, width]."""
        return (torch.from_numpy(self.values[rows]),)


@dataclass(frozen=True)
class Images:
    """N images as bytes, a quarter of the memory, that become pixels batch by batch.

    Attributes:
        values: [N, height, width, channels].
        encoder: that they were read with.
    """

    values: NDArray[np.uint8]
    encoder: PixelEncoder

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[N] units of each: all are of one size."""
        return np.full(len(self), self.encoder.options.units, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor]:
        """Return some images [B, channels, height, width]."""
        return (torch.from_numpy(self.encoder.normalised(self.values[rows])),)


class SmallCnn(nn.Module):
    """A residual network of three stages for small images; each stage halves the sides above four pixels."""

    def __init__(self, classes: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        stages, into, side = [], channels, min(height, width)
        for out in (16, 32, 64):
            stages.append(Stage(into, out, pooled=side > 4))
            into, side = out, side // 2 if side > 4 else side
        self.stages = nn.Sequential(*stages)
        self.classify = nn.Linear(into, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, classes] of images [B, channels, height, width]."""
        logits: Tensor = self.classify(self.stages(pixels).mean((2, 3)))
        return logits


class Stage(nn.Module):
    """A convolution, then a skip around two more."""

    def __init__(self, into: int, out: int, *, pooled: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(into, out, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        self.third = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.third_norm = nn.BatchNorm2d(out)
        self.pooled = pooled

    def forward(self, states: Tensor) -> Tensor:
        """Return the next states."""
        states = functional.relu(self.first_norm(self.first(states)))
        inner = functional.relu(self.second_norm(self.second(states)))
        states = functional.relu(states + self.third_norm(self.third(inner)))
        return functional.max_pool2d(states, 2) if self.pooled else states


class ImageNetwork(Network):
    """A torch module from images to logits, with what it takes to export, save and find it again."""

    def __init__(self, module: nn.Module, shape: ImageArchitecture) -> None:
        super().__init__()
        self.module = module
        self.shape = shape

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return self.shape.classes

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, C] of images [B, channels, height, width]."""
        logits: Tensor = self.module(pixels)
        return logits

    def examples(self, encoded: Encoded) -> Pixels:
        """Return the images of an encoding made by a pixel encoder."""
        return Pixels(encoded.arrays[PIXELS].astype(np.float32, copy=False), encoded.lengths)

    def read(self, encoder: Encoder, texts: Sequence[str]) -> Examples:
        """Return images as bytes, where a pixel encoder reads them."""
        if isinstance(encoder, PixelEncoder):
            return Images(encoder.values(texts), encoder)
        return super().read(encoder, texts)

    def images(self, count: int, seed: int = 0) -> Tensor:
        """Return random images of its shape, about as bright and varied as normalised ones."""
        shape = (count, self.shape.channels, self.shape.height, self.shape.width)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def graph_inputs(self) -> GraphInputs:
        """Return how it is exported: `pixels` [batch, channels, height, width], any batch."""
        axes = {0: torch.export.Dim("batch", min=1)}
        probes = tuple((self.images(batch, seed=batch),) for batch in PROBED_BATCHES)
        return GraphInputs(example=(self.images(2),), axes={PIXELS: axes}, probes=probes)

    def flops(self, length: float) -> float:  # noqa: ARG002 - all images are of one size
        """Return the floating-point operations of one image: its convolutions and matrix products."""
        self.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self(self.images(1))
        return float(counter.get_total_flops())

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and architecture (JSON) into a folder, each file atomically."""
        write_network(folder, KIND, self.shape, self.module.state_dict())

    def summary(self) -> dict[str, Any]:
        """Return its size, and the hash of the code that decides what its weights mean."""
        code = code_version(code_of("compress.networks.image_models"))
        return {**super().summary(), "channels": channels_of(self.module), "network_code": code}


def build_module(shape: ImageArchitecture) -> nn.Module:
    """Return a new module of a source, before any pruning, as its author initialises it.

    Raises:
        RecipeError: an unknown source, images that it does not take, logits of another shape than [B, C].
    """
    if shape.source == SMALL_CNN:
        return SmallCnn(shape.classes, shape.channels, shape.height, shape.width)
    if shape.source == EFFICIENTNET:
        if shape.channels != 3:
            raise RecipeError("teacher.image.channels must be 3 for these weights", where=shape.source)
        return EfficientNetLite0(shape.classes, shape.height, shape.width)
    module = user_function(shape.source)(shape.classes)
    if not isinstance(module, nn.Module):
        raise RecipeError(
            f"teacher.weights: the function returned {type(module).__name__}, not a torch module",
            where=shape.source,
        )
    return module


def pretrained_network(shape: ImageArchitecture, *, seed: int) -> tuple[ImageNetwork, bool]:
    """Return the network of a source with its weights, and whether it can answer without training.

    Raises:
        RecipeError: as `build_module`, and for weights that are not the published ones.
        EnvironmentProblem: a package is missing.
    """
    torch.manual_seed(seed)
    module = build_module(shape)
    trained = shape.source != SMALL_CNN
    if isinstance(module, EfficientNetLite0) and shape.source == EFFICIENTNET:
        trained = load_published(module, efficientnet_state())
    network = ImageNetwork(module.float(), shape)
    network.eval()
    try:
        with torch.no_grad():
            given = tuple(network(network.images(2)).shape)
    except Exception as problem:
        size = f"{shape.channels}x{shape.height}x{shape.width}"
        raise RecipeError(
            f"teacher.weights: the network fails on images of {size}: {problem}", where=shape.source
        ) from problem
    if given != (2, shape.classes):
        raise RecipeError(
            f"teacher.weights: two images give an output of shape {given}, not (2, {shape.classes})",
            where=shape.source,
            hint="the function is called with the number of classes and returns a module that gives logits",
        )
    return network, trained


def read_image_network(folder: Path) -> ImageNetwork:
    """Return the network of a folder that `ImageNetwork.save` wrote, pruned ones in their widths.

    Raises:
        FamilyError: when the weights do not fit the architecture.
    """
    shape = ImageArchitecture(**read_shape(folder))
    module = build_module(shape).float()
    with filling(folder) as weights:
        _fit(module, shape.widths, weights)
        module.load_state_dict(weights)
    return ImageNetwork(module, shape)


def widths_of(module: nn.Module) -> dict[str, dict[str, int]]:
    """Return every whole number that the parts of a module hold as attributes: channels, features, groups."""
    found = {
        name: {key: value for key, value in vars(part).items() if type(value) is int}
        for name, part in module.named_modules()
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def changed_widths(before: Widths, after: Widths) -> dict[str, dict[str, int]]:
    """Return the attributes of `after` that differ from those of `before`."""
    found = {
        name: {key: value for key, value in numbers.items() if before[name].get(key) != value}
        for name, numbers in after.items()
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def channels_of(module: nn.Module) -> int:
    """Return how many output channels the convolutions of a module have together."""
    return sum(part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d))


def _fit(module: nn.Module, widths: Widths, state: Mapping[str, Tensor]) -> None:
    """Give a new module the attributes and the tensor shapes of a pruned one."""
    for name, numbers in widths.items():
        part = module.get_submodule(name)
        for key, value in numbers.items():
            setattr(part, key, value)
    for name, tensor in state.items():
        owner, _, own_name = name.rpartition(".")
        part = module.get_submodule(owner)
        old = getattr(part, own_name)
        if old.shape == tensor.shape:
            continue
        new = torch.empty_like(tensor)
        setattr(part, own_name, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
