"""What every network offers to training, export and verification, whatever it looks like inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compress.network_kinds import NETWORKS
from contract.errors import FamilyError
from contract.family import Precision
from contract.files import atomic_path, read_json, write_json
from runtime.api import Encoded, Encoder
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS

ARCHITECTURE = "architecture.json"
WEIGHTS = "model.safetensors"
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
PROBED_SHAPES = ((1, 1), (1, 7), (4, 33), (2, 64))


class Examples(Protocol):
    """N encoded inputs that a network takes in batches."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[N] units of each, by which batches of like size are made."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Return what `network(*batch)` takes for some rows."""
        ...


@dataclass(frozen=True)
class GraphInputs:
    """How a network is traced.

    Attributes:
        example: a batch of two or more: a batch of one would freeze that axis.
        axes: dynamic shapes by name of the forward argument, which is the name in the graph too.
        probes: batches of other shapes, that graph and network must answer alike.
    """

    example: tuple[Tensor, ...]
    axes: Mapping[str, Mapping[int, Any]]
    probes: tuple[tuple[Tensor, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The graph's inputs, in order."""
        return tuple(self.axes)


class Network(nn.Module, ABC):
    """Base of every network: a batch in, logits [B, C] out."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """C."""

    @property
    def alone(self) -> bool:
        """Whether it must be asked text by text, because padding changes its answers."""
        return False

    @property
    def one_text(self) -> bool:
        """Whether it takes one text at a time and no more."""
        return False

    @property
    def precision(self) -> Precision:
        """The precision that it computes in."""
        return "fp32"

    @property
    def graph(self) -> Path | None:
        """The graph that it is, where it is one already and need not be traced."""
        return None

    @abstractmethod
    def examples(self, encoded: Encoded) -> Examples:
        """Return encoded inputs in the form that this network takes."""

    def read(self, encoder: Encoder, texts: Sequence[str]) -> Examples:
        """Return texts in the form that this network takes, in as little memory as that can be held in."""
        return self.examples(encoder.encode(texts))

    @abstractmethod
    def graph_inputs(self) -> GraphInputs:
        """Return how it is exported."""

    @abstractmethod
    def flops(self, length: float) -> float:
        """Return the floating-point operations of one input of so many units."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights and ARCHITECTURE (with the key `network`) into a folder, each file atomically."""

    def set_dropout(self, share: float) -> None:
        """Drop that share of activations in training, wherever the network drops any."""
        for module in self.modules():
            if isinstance(module, DROPOUT):
                module.p = share

    def summary(self) -> dict[str, Any]:
        """Return what the step that made it should record: JSON values."""
        return {"parameters": sum(parameter.numel() for parameter in self.parameters())}


class TokenShape(Protocol):
    """What the shapes of networks over word pieces have in common; frozen dataclasses."""

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        ...

    @property
    def longest(self) -> int:
        """Tokens that it takes at most."""
        ...

    @property
    def classes(self) -> int:
        """C."""
        ...


Shape = TypeVar("Shape", bound=TokenShape)


class TokenNetwork(Network, Generic[Shape]):
    """Base of the networks over token ids and their mask; `shape` says how wide they are."""

    shape: Shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.shape.classes

    def examples(self, encoded: Encoded) -> Examples:
        """Return the tokens of texts."""
        return Tokens.of(encoded)

    def graph_inputs(self) -> GraphInputs:
        """Return inputs of any batch and length."""
        return token_inputs(self.shape.vocabulary, self.shape.longest)

    def set_dropout(self, share: float) -> None:
        """Drop that share of activations in training, and record it in the shape."""
        super().set_dropout(share)
        self.shape = replace(cast(Any, self.shape), dropout=share)


def write_network(folder: Path, kind: str, shape: Any, weights: Mapping[str, Tensor]) -> None:
    """Write WEIGHTS (safetensors) and ARCHITECTURE (JSON) into a folder, each file atomically.

    Args:
        kind: key of NETWORKS.
        shape: a dataclass of JSON values.
        weights: by name.
    """
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}, temporary)
    write_json(folder / ARCHITECTURE, {"network": kind, **asdict(shape)})


def read_shape(folder: Path) -> dict[str, Any]:
    """Return the shape that `write_network` wrote. Raises FamilyError."""
    raw = read_json(folder / ARCHITECTURE, error=FamilyError)
    return {key: value for key, value in raw.items() if key != "network"}


@contextmanager
def filling(folder: Path) -> Iterator[dict[str, Tensor]]:
    """Give the weights of a folder to fill a network with.

    Raises:
        FamilyError: when they do not fit the network that is filled.
    """
    try:
        yield load_file(folder / WEIGHTS)
    except (RuntimeError, AttributeError) as problem:
        raise FamilyError(
            f"the weights do not fit the architecture beside them: {problem}", where=folder / WEIGHTS
        ) from None


def load_network(folder: Path) -> Network:
    """Return the network of a step's folder, in evaluation mode.

    Raises:
        FamilyError: when the folder is of no known kind, or weights do not fit the architecture.
    """
    kind = read_json(folder / ARCHITECTURE, error=FamilyError).get("network")
    if kind not in NETWORKS:
        raise FamilyError(f"unknown kind of network {kind!r}", where=folder / ARCHITECTURE)
    module, _, name = NETWORKS[kind].partition(":")
    network = cast(Network, getattr(import_module(module), name)(folder))
    network.eval()
    return network


@dataclass(frozen=True)
class Tokens:
    """N tokenized texts as padded rows. ids: [N, T] int64; lengths: [N]."""

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, encoded: Encoded) -> Tokens:
        """Return the tokens of an encoding made by a word-piece encoder."""
        return cls(encoded.arrays[INPUT_IDS].astype(np.int64, copy=False), encoded.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def real(self) -> NDArray[np.int64]:
        """The ids of all texts in one row, without padding."""
        kept: NDArray[np.int64] = self.ids[np.arange(self.ids.shape[1]) < self.lengths[:, None]]
        return kept

    def counts(self, size: int) -> NDArray[np.int64]:
        """Return [size] how often each id below `size` occurs."""
        return np.bincount(self.real, minlength=size)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return ids and mask [B, longest] of some rows."""
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        mask = np.arange(longest) < lengths[:, None]
        return torch.from_numpy(self.ids[rows, :longest]), torch.from_numpy(mask.astype(np.int64))


@dataclass(frozen=True)
class Segmented(Tokens):
    """Tokens with the segment of each. types: [N, T] int64."""

    types: NDArray[np.int64]

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Return ids, mask and segments [B, longest] of some rows."""
        ids, mask = super().batch(rows)
        return ids, mask, torch.from_numpy(self.types[rows, : ids.shape[1]])


def token_inputs(vocabulary: int, longest: int) -> GraphInputs:
    """Return the graph inputs of a network over token ids and their mask, both [batch, length].

    Args:
        vocabulary: ids are below it.
        longest: tokens that the network takes at most.
    """
    generator = torch.Generator().manual_seed(0)

    def random_batch(batch: int, length: int) -> tuple[Tensor, Tensor]:
        ids = torch.randint(1, vocabulary, (batch, length), generator=generator)
        kept = torch.randint(1, length + 1, (batch, 1), generator=generator)
        kept[0] = length
        return ids, (torch.arange(length) < kept).long()

    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=longest)}
    return GraphInputs(
        example=random_batch(2, min(16, longest)),
        axes={INPUT_IDS: axes, ATTENTION_MASK: axes},
        probes=tuple(random_batch(batch, min(length, longest)) for batch, length in PROBED_SHAPES),
    )
