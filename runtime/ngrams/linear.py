"""The linear stage: tf-idf of hashed n-grams times a weight table, in plain arrays."""

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


@dataclass(frozen=True)
class LinearModel:
    """A linear classifier over R of 2**bits n-gram buckets.

    Attributes:
        buckets: [R] uint32, ascending: the buckets that have weights; the others count for nothing.
        weights: [R, C] float32.
        idf: [R] float32, inverse document frequency.
        bias: [C] float32.
        encoder: sha256 of the n-gram encoding that it was trained on.
        bits: of that encoding.
    """

    buckets: NDArray[np.uint32]
    weights: Floats
    idf: Floats
    bias: Floats
    encoder: str
    bits: int

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return int(self.weights.size + self.bias.size)


def write_linear(path: Path, model: LinearModel) -> None:
    """Write a model as an uncompressed .npz, atomically and byte for byte reproducibly."""
    write_model(path, model, ("buckets", "weights", "idf", "bias"))


def read_linear(path: Path) -> LinearModel:
    """Read a model written by `write_linear`; pickles are refused.

    Raises:
        FamilyError: for a file that is missing, not such a model, or inconsistent.
    """
    floats = dict.fromkeys(("weights", "idf", "bias"), np.float32)
    model = LinearModel(**read_arrays(path, {"buckets": np.uint32, **floats}, "linear model"))
    rows, classes = model.weights.shape if model.weights.ndim == 2 else (-1, -1)
    if model.bias.shape != (classes,) or not rows_fit(model, rows):
        raise FamilyError("the arrays of the linear model do not fit each other", where=path)
    return model


class LinearRuntime(NgramRuntime):
    """Answers from a `LinearModel`."""

    def __init__(self, model: LinearModel) -> None:
        super().__init__(model)
        self._weights = model.weights

    def _answer(self, rows: NDArray[np.int32], values: Floats, out: Floats) -> None:
        np.add(weighted_sum(self._weights.take(rows, axis=0), values), self._bias, out=out)

    def compiled(self, options: NgramOptions) -> CompiledModel | None:
        """Return what answers texts in one call; see NgramRuntime."""
        if not COMPILED:
            return None
        rows, classes = self._weights.shape
        scorer = Scorer.linear(
            options.numbers,
            rows,
            classes,
            self._model.buckets,
            self._model.idf,
            LOGS,
            self._bias,
            self._weights,
        )
        return CompiledModel(scorer, classes)
