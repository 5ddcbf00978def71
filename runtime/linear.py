"""Runtime of the linear stage: tf-idf of hashed n-grams times a weight table, in plain arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from contract.errors import FamilyError
from contract.files import atomic_path
from runtime.api import Encoded, Logits
from runtime.ngrams import BUCKETS

_ARRAYS = ("buckets", "weights", "idf", "bias")
_LOG_TABLE = np.concatenate(([0.0], 1.0 + np.log(np.arange(1, 4097)))).astype(np.float32)
_ENDS = np.array([-1, np.iinfo(np.int32).max], dtype=np.int32)


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
    weights: NDArray[np.float32]
    idf: NDArray[np.float32]
    bias: NDArray[np.float32]
    encoder: str
    bits: int

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return int(self.weights.size + self.bias.size)


def write_linear(path: Path, model: LinearModel) -> None:
    """Write a model as an uncompressed .npz, atomically and byte for byte reproducibly."""
    arrays = {name: getattr(model, name) for name in _ARRAYS}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            encoder=np.array(model.encoder),
            bits=np.array(model.bits, dtype=np.int64),
            **arrays,
        )


def read_linear(path: Path) -> LinearModel:
    """Read a model written by `write_linear`; pickles are refused.

    Raises:
        FamilyError: for a file that is missing, not such a model, or inconsistent.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            model = LinearModel(
                buckets=file["buckets"].astype(np.uint32, copy=False),
                weights=np.ascontiguousarray(file["weights"], dtype=np.float32),
                idf=file["idf"].astype(np.float32, copy=False),
                bias=file["bias"].astype(np.float32, copy=False),
                encoder=str(file["encoder"]),
                bits=int(file["bits"]),
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as problem:
        raise FamilyError(f"not a readable linear model: {problem}", where=path) from None
    rows, classes = model.weights.shape if model.weights.ndim == 2 else (-1, -1)
    ascending = bool(np.all(model.buckets[1:] > model.buckets[:-1])) if model.buckets.ndim == 1 else False
    if not (
        model.buckets.shape == model.idf.shape == (rows,)
        and model.bias.shape == (classes,)
        and ascending
        and 8 <= model.bits <= 28
        and (rows == 0 or int(model.buckets[-1]) < 1 << model.bits)
    ):
        raise FamilyError("the arrays of the linear model do not fit each other", where=path)
    return model


class LinearRuntime:
    """Answers from a `LinearModel`, text by text, so that batchmates change not a single bit."""

    def __init__(self, model: LinearModel) -> None:
        self._encoder = model.encoder
        self._rows = np.full(1 << model.bits, -1, dtype=np.int32)
        self._rows[model.buckets] = np.arange(model.buckets.size, dtype=np.int32)
        self._weights = model.weights
        self._idf = model.idf
        self._bias = model.bias

    def logits(self, encoded: Encoded) -> Logits:
        """Return float32 logits [N, C].

        Raises:
            FamilyError: when another encoder made the input.
        """
        if encoded.encoder != self._encoder:
            raise FamilyError("the texts were encoded for another variant: encoder hashes differ")
        out = np.empty((len(encoded), self._bias.size), dtype=np.float32)
        for i, buckets in enumerate(encoded.arrays[BUCKETS]):
            rows, values = tf_idf(self._rows[buckets], self._idf)
            np.add(values.dot(self._weights.take(rows, axis=0)), self._bias, out=out[i])
        return out

    def close(self) -> None:
        """Nothing to free: arrays go with the object."""


def tf_idf(
    rows: NDArray[np.int32], idf: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the distinct rows of one text, ascending, and their L2-normalised values.

    value = (1 + log(count)) * idf: sublinear term frequency (Manning, Raghavan and Schütze 2008, 6.4.1).

    Args:
        rows: row of every n-gram of the text, with repeats; negative ones are left out.
        idf: [R].
    """
    ordered = np.concatenate((rows, _ENDS))
    ordered.sort()
    last = (ordered[1:] != ordered[:-1]).nonzero()[0]
    distinct = ordered[last[1:]]
    values = _LOG_TABLE.take(last[1:] - last[:-1], mode="clip")
    values *= idf.take(distinct)
    norm = math.sqrt(values.dot(values))
    if norm > 0:
        values /= norm
    return distinct, values
