"""Answers that a teacher gave elsewhere, as the file that keeps them: by text, without the texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.errors import DataError
from contract.files import atomic_path

RECORDED = "answers.parquet"
_LABELS = b"sluice.label_set"


@dataclass(frozen=True)
class Recorded:
    """Answers by the sha256 of a text.

    Attributes:
        labels: the label set, C names.
        answers: [C] logits by hash.
    """

    labels: tuple[str, ...]
    answers: Mapping[bytes, NDArray[np.float32]]

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits [N, C] of N texts, a row of NaN where a text has no answer."""
        missing = np.full(len(self.labels), np.nan, dtype=np.float32)
        found = [self.answers.get(hash_of(text), missing) for text in texts]
        return np.array(found, dtype=np.float32).reshape(len(texts), len(self.labels))


def hash_of(text: str) -> bytes:
    """Return the sha256 of a text, half surrogate pairs included."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def write_recorded(path: Path, recorded: Recorded) -> None:
    """Write the columns text_sha256 and logits as Parquet, atomically; the label set in its metadata."""
    keys = sorted(recorded.answers)
    table = pa.table(
        {
            "text_sha256": pa.array(keys, pa.binary(32)),
            "logits": pa.array([recorded.answers[key] for key in keys], pa.list_(pa.float32())),
        }
    ).replace_schema_metadata({_LABELS: "\n".join(recorded.labels).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_recorded(path: Path) -> Recorded:
    """Read what `write_recorded` wrote. Raises DataError."""
    try:
        table = pq.read_table(path)
        labels = tuple((table.schema.metadata or {})[_LABELS].decode().split("\n"))
        keys, rows = table["text_sha256"].to_pylist(), table["logits"].to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError) as problem:
        raise DataError(f"not recorded answers of this project: {problem}", where=path) from None
    answers = {key: np.array(row, dtype=np.float32) for key, row in zip(keys, rows, strict=True)}
    return Recorded(labels, answers)
