"""From the n-grams of a text to tf-idf, and sums of rows by them, in an order that compiled code repeats."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from contract.errors import FamilyError
from contract.files import atomic_path
from runtime.api import Encoded, Logits
from runtime.ngrams.compiled import CompiledModel
from runtime.ngrams.encoder import BUCKETS, NgramOptions

Floats = NDArray[np.float32]

LOGS: Floats = np.concatenate(([0.0], 1.0 + np.log(np.arange(1, 4097)))).astype(np.float32)
"""1 + log(count) by count; the last stands for all larger counts."""
_ENDS = np.array([-1, np.iinfo(np.int32).max], dtype=np.int32)


class NgramModel(Protocol):
    """What every model over the rows of R of 2**bits n-gram buckets has."""

    @property
    def buckets(self) -> NDArray[np.uint32]:
        """[R] ascending: the buckets that have a row; the others count for nothing."""
        ...

    @property
    def idf(self) -> Floats:
        """[R] inverse document frequency."""
        ...

    @property
    def bias(self) -> Floats:
        """[C]."""
        ...

    @property
    def encoder(self) -> str:
        """Hash of the n-gram encoding that it was trained on."""
        ...

    @property
    def bits(self) -> int:
        """Of that encoding."""
        ...


class NgramRuntime(ABC):
    """Answers from a model over n-grams, text by text, so that batchmates change not a single bit."""

    def __init__(self, model: NgramModel) -> None:
        self._model = model
        # No bias is -0: then no sum's sign of zero depends on where it starts.
        self._bias: Floats = model.bias + np.float32(0)

    @cached_property
    def _rows(self) -> NDArray[np.int32]:
        """The row of every bucket, -1 where it has none; compiled answers need no such table."""
        rows = np.full(1 << self._model.bits, -1, dtype=np.int32)
        rows[self._model.buckets] = np.arange(self._model.buckets.size, dtype=np.int32)
        return rows

    def logits(self, encoded: Encoded) -> Logits:
        """Return float32 logits [N, C].

        Raises:
            FamilyError: when another encoder made the input.
        """
        if encoded.encoder != self._model.encoder:
            raise FamilyError("the texts were encoded for another variant: encoder hashes differ")
        out = np.empty((len(encoded), self._bias.size), dtype=np.float32)
        for i, buckets in enumerate(encoded.arrays[BUCKETS]):
            self._answer(*tf_idf(self._rows[buckets], self._model.idf), out[i])
        return out

    @abstractmethod
    def _answer(self, rows: NDArray[np.int32], values: Floats, out: Floats) -> None:
        """Write the logits [C] of one text into `out`, given its rows and their values."""

    @abstractmethod
    def compiled(self, options: NgramOptions) -> CompiledModel | None:
        """Return what answers texts in one call, the encoding included; None where nothing is compiled.

        Args:
            options: of the encoder that the model was trained on.
        """

    def close(self) -> None:  # noqa: B027 - a part of the Runtime protocol
        """Nothing to free: arrays go with the object."""


def tf_idf(rows: NDArray[np.int32], idf: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Return the distinct rows of one text, ascending, and their L2-normalised values.

    value = (1 + log(count)) * idf: sublinear term frequency (Manning, Raghavan and Schütze 2008, 6.4.1).
    The squares are added in float64, one after the other.

    Args:
        rows: row of every n-gram of the text, with repeats; negative ones are left out.
        idf: [R].
    """
    ordered = np.concatenate((rows, _ENDS))
    ordered.sort()
    last = (ordered[1:] != ordered[:-1]).nonzero()[0]
    distinct = ordered[last[1:]]
    values: Floats = LOGS.take(last[1:] - last[:-1], mode="clip")
    values *= idf.take(distinct)
    if values.size:
        squares = np.multiply(values, values, dtype=np.float64)
        norm = math.sqrt(np.add.accumulate(squares)[-1])
        if norm > 0:
            values /= np.float32(norm)
    return distinct, values


def weighted_sum(table: Floats, values: Floats) -> Floats:
    """Return the sum of values[i] * table[i] over i, [K, C] and [K] -> [C], added in the order of the rows.

    `table` is overwritten. A product with BLAS would be quicker, but adds in an order of its own.
    """
    table *= values[:, None]
    if table.shape[1] == 1 and table.size:  # numpy would add a lone column up in pairs
        found: Floats = np.add.accumulate(table, axis=0)[-1]
    else:
        found = np.add.reduce(table, axis=0)
    return found


def write_model(path: Path, model: NgramModel, arrays: tuple[str, ...]) -> None:
    """Write a model as an uncompressed .npz, atomically and byte for byte reproducibly."""
    named: dict[str, Any] = {name: getattr(model, name) for name in arrays}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            encoder=np.array(model.encoder),
            bits=np.array(model.bits, dtype=np.int64),
            **named,
        )


def read_arrays(path: Path, arrays: dict[str, type[np.generic]], what: str) -> dict[str, Any]:
    """Return the arrays of a model as the types asked for, `encoder` and `bits`; pickles are refused.

    Raises:
        FamilyError: for a file that is missing or not such a model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, Any] = {
                name: np.ascontiguousarray(file[name], dtype=dtype) for name, dtype in arrays.items()
            }
            return found | {"encoder": str(file["encoder"]), "bits": int(file["bits"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as problem:
        raise FamilyError(f"not a readable {what}: {problem}", where=path) from None


def rows_fit(model: NgramModel, rows: int) -> bool:
    """Return whether a model's buckets ascend within its bits, one per row, with an idf each."""
    buckets = model.buckets
    return (
        buckets.shape == model.idf.shape == (rows,)
        and bool(np.all(buckets[1:] > buckets[:-1]))
        and 8 <= model.bits <= 28
        and (rows == 0 or int(buckets[-1]) < 1 << model.bits)
    )
