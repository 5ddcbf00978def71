"""Texts that nobody has labelled: read, without repeats, and divided at random, for a teacher to answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.datasets.data import Dataset
from compress.datasets.duplicates import Removed, repeat_of, text_key, without_repeats
from compress.datasets.loading import divide, slices_of, unlabelled_rows
from compress.datasets.sources import Row, rows_of, source_records
from compress.recipes.data_part import SPLITS, UNLABELLED, DataPart
from contract.errors import DataError
from tables.files import Columns


def load_texts(part: DataPart, labels: Sequence[str], *, seed: int) -> Dataset:
    """Read and divide the texts of a recipe whose `data.label` is null; each has the label "".

    Args:
        part: of the recipe.
        labels: the label set, which the data cannot tell.
        seed: of the division.

    Raises:
        DataError: naming file, row and rule.
        EnvironmentProblem: when a package or the network that a source needs is missing.
    """
    rows, split, removed = _from_file(part, seed) if part.file is not None else _from_sources(part, seed)
    for name in SPLITS:
        if name not in split:
            raise DataError(
                f"the split {name!r} is empty: {len(rows)} texts are too few",
                where=part.file or part.train,
                hint="give more texts, or other `data.shares`",
            )
    if part.unlabelled is not None:
        more = unlabelled_rows(part, rows)
        rows, split = rows + more, split + [UNLABELLED] * len(more)
    return Dataset(
        labels=tuple(labels),
        texts=tuple(row.text for row in rows),
        label=("",) * len(rows),
        split=tuple(split),
        slices=tuple(slices_of(row, part.slices) for row in rows),
        removed=removed.in_full,
        removed_after_cut=removed.after_cut,
    )


def _from_file(part: DataPart, seed: int) -> tuple[list[Row], list[str], Removed]:
    rows, removed = without_repeats(_read(part.file or "", part), part.file)
    if part.max_examples is not None and part.max_examples < len(rows):
        drawn = np.random.default_rng(seed).permutation(len(rows))[: part.max_examples]
        rows = [rows[index] for index in sorted(drawn)]
    return rows, divide([""] * len(rows), part.shares.as_dict(), seed=seed), removed


def _from_sources(part: DataPart, seed: int) -> tuple[list[Row], list[str], Removed]:
    """Return the texts of one source per split; a text in two of them stays in the later split."""
    found: dict[str, tuple[Row, str]] = {}
    removed = Removed()
    for name in ("test", "certify", "tune", "validation", "train"):
        source = getattr(part, name)
        if source is None:
            continue
        unique, repeats = without_repeats(_read(source, part), source)
        removed += repeats
        for row in unique:
            earlier = found.setdefault(text_key(row), (row, name))
            if earlier[0] is not row:
                removed += repeat_of(earlier[0], row)
    rows, split = [row for row, _ in found.values()], [name for _, name in found.values()]
    if part.tune is None:
        places = [index for index, name in enumerate(split) if name == "validation"]
        shares = {"validation": 0.4, "tune": 0.2, "certify": 0.4}
        for place, name in zip(places, divide([""] * len(places), shares, seed=seed), strict=True):
            split[place] = name
    return rows, split, removed


def _read(source: str, part: DataPart) -> list[Row]:
    columns = Columns(part.text, None, part.slice)
    rows = rows_of(source_records(source, columns), columns, source)
    return rows if part.max_words is None else [row.cut(part.max_words) for row in rows]
