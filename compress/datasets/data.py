"""Labelled texts with their splits and slices, and the Parquet file that keeps them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from compress.recipes.data_part import SPLITS
from contract.errors import DataError
from contract.family import Split as SplitRecord
from contract.files import atomic_path, sha256_of_json

DATA = "data.parquet"


@dataclass(frozen=True)
class Dataset:
    """N labelled texts with the split and the slices of each.

    Attributes:
        labels: the label set, sorted.
        texts, label, split, slices: one entry per row; `label` holds label names, "" where there is none.
        removed: how many rows were left out because an earlier one has the same text in full.
        removed_after_cut: how many more, because an earlier one has the same text up to `data.max_words` or
            upper and lower case.
        removed_in_conflict: how many more, because their text has several labels (`data.conflicts`).
    """

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    label: tuple[str, ...]
    split: tuple[str, ...]
    slices: tuple[tuple[str, ...], ...]
    removed: int = 0
    removed_after_cut: int = 0
    removed_in_conflict: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def targets(self) -> NDArray[np.int64]:
        """[N] class indices, -1 where a row has no label."""
        index = {"": -1, **{name: i for i, name in enumerate(self.labels)}}
        return np.array([index[name] for name in self.label], dtype=np.int64)

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """Return the row numbers of some splits, ascending."""
        return np.flatnonzero(np.isin(np.array(self.split), splits))

    def take(self, rows: NDArray[np.int64]) -> Dataset:
        """Return some rows, in the order given; the label set stays."""
        return replace(
            self,
            texts=tuple(self.texts[i] for i in rows),
            label=tuple(self.label[i] for i in rows),
            split=tuple(self.split[i] for i in rows),
            slices=tuple(self.slices[i] for i in rows),
        )

    def of(self, *splits: str) -> Dataset:
        """Return the rows of some splits."""
        return self.take(self.rows(*splits))

    @property
    def sha256(self) -> str:
        """Hash of the content: texts, labels and slices, in order."""
        return sha256_of_json([self.texts, self.label, self.slices])

    def records(self) -> dict[str, SplitRecord]:
        """Return size and hash of every split, as the manifest holds them."""
        parts = {name: self.of(name) for name in SPLITS}
        return {name: SplitRecord(n=len(part), sha256=part.sha256) for name, part in parts.items()}


def write_dataset(path: Path, data: Dataset) -> None:
    """Write text, label, split and slice columns as Parquet, atomically; the label set in its metadata."""
    table = pa.table(
        {
            "text": pa.array(data.texts, pa.string()),
            "label": pa.array(data.label, pa.string()),
            "split": pa.array(data.split, pa.string()),
            "slice": pa.array([list(names) for names in data.slices], pa.list_(pa.string())),
        }
    ).replace_schema_metadata({b"sluice.label_set": "\n".join(data.labels).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_dataset(path: Path) -> Dataset:
    """Read what `write_dataset` wrote. Raises DataError."""
    try:
        table = pq.read_table(path)
        labels = tuple((table.schema.metadata or {})[b"sluice.label_set"].decode().split("\n"))
        columns = {name: table[name].to_pylist() for name in ("text", "label", "split", "slice")}
    except (OSError, pa.ArrowInvalid, KeyError) as problem:
        raise DataError(f"not a data set of this project: {problem}", where=path) from None
    return Dataset(
        labels=labels,
        texts=tuple(columns["text"]),
        label=tuple(columns["label"]),
        split=tuple(columns["split"]),
        slices=tuple(tuple(names or ()) for names in columns["slice"]),
    )
