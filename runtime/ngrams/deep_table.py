"""The deep table: n-grams as vectors that are summed, one hidden layer and a dense one, in INT8.

A linear model gives every n-gram one weight per class, whatever stands beside it. Here a hidden unit can
answer to two n-grams together, such as a word and a negation far from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.errors import FamilyError
from runtime.ngrams.compiled import COMPILED, CompiledModel, Scorer
from runtime.ngrams.encoder import NgramOptions
from runtime.ngrams.features import (
    LOGS,
    Floats,
    NgramRuntime,
    read_arrays,
    rows_fit,
    weighted_sum,
    write_model,
)

_FLOATS = ("idf", "scales", "hidden_bias", "dense_scales", "bias")
_SMALL = ("vectors", "dense")
_LARGEST = np.float32(127)


@dataclass(frozen=True)
class DeepTable:
    """A classifier with one hidden layer of H units over R of 2**bits n-gram buckets.

    logits = relu(sum of value * scale * vector + hidden_bias) @ dense * dense_scales + bias

    Attributes:
        buckets: [R] uint32, ascending: the buckets that have a vector; the others count for nothing.
        idf: [R] float32, inverse document frequency.
        vectors: [R, H] int8.
        scales: [R] float32: what one step of a vector's numbers is.
        hidden_bias: [H] float32.
        dense: [H, C] int8.
        dense_scales: [C] float32: what one step of a column's numbers is.
        bias: [C] float32.
        encoder: sha256 of the n-gram encoding that it was trained on.
        bits: of that encoding.
    """

    buckets: NDArray[np.uint32]
    idf: Floats
    vectors: NDArray[np.int8]
    scales: Floats
    hidden_bias: Floats
    dense: NDArray[np.int8]
    dense_scales: Floats
    bias: Floats
    encoder: str
    bits: int

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return int(self.vectors.size + self.hidden_bias.size + self.dense.size + self.bias.size)


def in_int8(numbers: Floats, axis: int) -> tuple[NDArray[np.int8], Floats]:
    """Return numbers [A, B] as int8, and the size of one step for each line along `axis`.

    The largest number of a line is 127 steps from zero; a line of zeros has steps of 0.
    """
    scales = np.abs(numbers).max(axis=axis, initial=0.0) / _LARGEST
    divisors = np.expand_dims(np.where(scales > 0, scales, np.float32(1)), axis)
    small = np.rint(numbers / divisors).clip(-_LARGEST, _LARGEST).astype(np.int8)
    return small, scales.astype(np.float32)


def write_deep_table(path: Path, model: DeepTable) -> None:
    """Write a model as an uncompressed .npz, atomically and byte for byte reproducibly."""
    write_model(path, model, ("buckets", *_SMALL, *_FLOATS))


def read_deep_table(path: Path) -> DeepTable:
    """Read a model written by `write_deep_table`; pickles are refused.

    Raises:
        FamilyError: for a file that is missing, not such a model, or inconsistent.
    """
    types: dict[str, type[np.generic]] = {"buckets": np.uint32}
    types |= dict.fromkeys(_SMALL, np.int8) | dict.fromkeys(_FLOATS, np.float32)
    model = DeepTable(**read_arrays(path, types, "deep table"))
    rows, hidden = model.vectors.shape if model.vectors.ndim == 2 else (-1, -1)
    classes = model.bias.size
    if not (
        model.scales.shape == (rows,)
        and model.hidden_bias.shape == (hidden,)
        and model.dense.shape == (hidden, classes)
        and model.dense_scales.shape == model.bias.shape == (classes,)
        and rows_fit(model, rows)
    ):
        raise FamilyError("the arrays of the deep table do not fit each other", where=path)
    return model


class DeepTableRuntime(NgramRuntime):
    """Answers from a `DeepTable`."""

    def __init__(self, model: DeepTable) -> None:
        super().__init__(model)
        self._table = model
        self._hidden_bias: Floats = model.hidden_bias + np.float32(0)
        self._dense = model.dense.astype(np.float32)

    def _answer(self, rows: NDArray[np.int32], values: Floats, out: Floats) -> None:
        values *= self._table.scales.take(rows)
        vectors = self._table.vectors.take(rows, axis=0).astype(np.float32)
        hidden = weighted_sum(vectors, values)
        hidden += self._hidden_bias
        np.maximum(hidden, 0, out=hidden)
        np.multiply(weighted_sum(self._dense.copy(), hidden), self._table.dense_scales, out=out)
        out += self._bias

    def compiled(self, options: NgramOptions) -> CompiledModel | None:
        """Return what answers texts in one call; see NgramRuntime."""
        if not COMPILED:
            return None
        table = self._table
        rows, hidden = table.vectors.shape
        scorer = Scorer.deep(
            options.numbers,
            rows,
            self._bias.size,
            hidden,
            table.buckets,
            table.idf,
            LOGS,
            self._bias,
            table.vectors,
            table.scales,
            self._hidden_bias,
            table.dense,
            table.dense_scales,
        )
        return CompiledModel(scorer, self._bias.size)
