"""A convolutional text classifier over word pieces, taught by a transformer (after Kim 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compress.datasets.data import DATA, read_dataset
from compress.learning.teacher import finish_network, parent_encoder
from compress.learning.transfer_set import learn_from
from compress.networks.foreign import ForeignNetwork
from compress.networks.models import (
    TokenNetwork,
    Tokens,
    filling,
    load_network,
    read_shape,
    write_network,
)
from compress.networks.network import Classifier
from compress.onnx_graphs.network import GraphNetwork
from compress.recipes.parts import CnnPart
from compress.steps import Context, Result
from contract.errors import RecipeError


@dataclass(frozen=True)
class CnnShape:
    """Everything that decides the shapes of a convolutional network; written beside its weights."""

    vocabulary: int
    embedding: int
    channels: int
    widths: tuple[int, ...]
    classes: int
    longest: int
    dropout: float = 0.0
    pad_id: int = 0


class TextCnn(TokenNetwork[CnnShape]):
    """Token ids and mask in, logits out: filters of several widths, each at its strongest place.

    A filter of width w at place t sees the pieces t to t + w - 1, and zeros beyond the end, so that texts
    shorter than a filter work and padding changes no answer. Filters are matrix products over joined
    neighbours: in INT8 these are fast everywhere, where convolutions are not.
    """

    def __init__(self, shape: CnnShape) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocabulary, shape.embedding, padding_idx=shape.pad_id)
        self.filters = nn.ModuleList(
            nn.Linear(width * shape.embedding, shape.channels) for width in shape.widths
        )
        self.classify = nn.Linear(shape.channels * len(shape.widths), shape.classes)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits [B, C] of ids [B, T] and their mask [B, T] (1 where there is a token)."""
        real = attention_mask.to(self.words.weight.dtype)[:, :, None]
        length = input_ids.shape[1]
        pieces = self.dropout(self.words(input_ids) * real)
        padded = functional.pad(pieces, (0, 0, 0, max(self.shape.widths) - 1))
        strongest = []
        for width, filters in zip(self.shape.widths, self.filters, strict=True):
            joined = torch.cat([padded[:, start : start + length] for start in range(width)], dim=-1)
            found = functional.relu(filters(joined)) * real
            strongest.append(found.amax(dim=1))
        logits: Tensor = self.classify(self.dropout(torch.cat(strongest, dim=-1)))
        return logits

    def flops(self, length: float) -> float:
        """Return multiply-adds times two of one text of so many tokens."""
        shape = self.shape
        filters = length * sum(shape.widths) * shape.embedding * shape.channels
        return 2.0 * (filters + shape.channels * len(shape.widths) * shape.classes)

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and architecture (JSON) into a folder, each file atomically."""
        write_network(folder, "cnn", self.shape, self.state_dict())

    def summary(self) -> dict[str, Any]:
        """Return its size and shape."""
        shape = self.shape
        return {
            **super().summary(),
            "embedding": shape.embedding,
            "channels": shape.channels,
            "filter_widths": list(shape.widths),
        }


def read_text_cnn(folder: Path) -> TextCnn:
    """Return the network that `TextCnn.save` wrote. Raises FamilyError when weights and shape do not fit."""
    settings = read_shape(folder)
    network = TextCnn(CnnShape(**{**settings, "widths": tuple(settings["widths"])}))
    with filling(folder) as weights:
        network.load_state_dict(weights)
    return network


def distil_cnn(context: Context) -> Result:
    """Train a convolutional student over its parent's word pieces on a teacher's answers, and write it.

    Raises:
        RecipeError: when more dimensions per piece are asked for than the parent has.
    """
    part = CnnPart.model_validate(context.step.config["variant"])
    parent = load_network(context.inputs["parent"].folder)
    if isinstance(parent, Classifier):
        words = parent.words.weight.detach()
    elif isinstance(parent, ForeignNetwork | GraphNetwork):
        words = parent.word_table.detach()
    else:
        raise RecipeError(f"variant {part.name!r}: its parent has no word pieces to start from")
    encoder, spec = parent_encoder(context)
    if part.embedding is not None and part.embedding > words.shape[1]:
        raise RecipeError(
            f"variant {part.name!r}: embedding is {part.embedding}, its parent {part.parent!r} has "
            f"{words.shape[1]}"
        )
    texts = read_dataset(context.inputs["data"].file(DATA)).of("train").texts
    counts = Tokens.of(encoder.encode(texts)).counts(parent.shape.vocabulary)
    table = reduced_table(words.float().numpy(), counts, part.embedding)
    torch.manual_seed(context.recipe.seed)
    student = TextCnn(
        CnnShape(
            vocabulary=parent.shape.vocabulary,
            embedding=table.shape[1],
            channels=part.channels,
            widths=part.widths,
            classes=parent.classes,
            longest=parent.shape.longest,
            dropout=part.training.dropout,
            pad_id=parent.shape.pad_id,
        )
    )
    with torch.no_grad():
        student.words.weight.copy_(torch.from_numpy(table))
    taught = learn_from(context, student, encoder, part)
    return {**finish_network(context, student, spec), "taught_texts": taught}


def reduced_table(
    table: NDArray[np.float32], counts: NDArray[np.int64], size: int | None
) -> NDArray[np.float32]:
    """Return a word table [V, size], centred, and scaled to a mean square of 1 over the texts' pieces.

    The directions kept are those of greatest variance over the pieces of the texts: the leading eigenvectors
    of their covariance, each piece weighted by how often it occurs.

    Args:
        table: [V, H].
        counts: [V] occurrences of every piece.
        size: dimensions to keep; None, or H and more, keeps all of them, centred and scaled like any.
    """
    shares = counts / counts.sum()
    centred = table - shares @ table
    if size is not None and size < table.shape[1]:
        covariance = (centred * shares[:, None]).T @ centred
        _, directions = np.linalg.eigh(covariance)
        centred = centred @ directions[:, ::-1][:, :size]
    spread = np.sqrt(shares @ np.square(centred).mean(axis=1))
    scaled: NDArray[np.float32] = (centred / max(float(spread), 1e-12)).astype(np.float32)
    return scaled
