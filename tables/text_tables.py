"""Predictions tables in text files: the columns that count, as Arrow arrays, by one rule for every file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from contract.errors import PredictionsError
from tables.content import kind_of, text_of
from tables.delimited import delimited_records
from tables.labelled import name_in_cell, slice_names
from tables.labels import label_name, shown
from tables.numbers import is_missing, number_in
from tables.objects import document_records, line_records

T = TypeVar("T")

DELIMITED = (".csv", ".tsv", ".tab", ".txt")
TEXT = (*DELIMITED, ".jsonl", ".ndjson", ".json")

_WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")
_HALF = re.compile("[\ud800-\udfff]")


def text_table(path: Path) -> pa.Table:
    """Return the labels, predictions, confidences, logits, splits and slices of a text file.

    Labels stay as they are written (`007` is not 7); a column of whole numbers alone holds integers.

    Raises:
        InputError: a file that cannot be read, or a value that its column cannot hold; names file and row.
    """
    kind, content = kind_of(path), text_of(path)
    if kind in DELIMITED:
        prefer = "\t" if kind in {".tsv", ".tab"} else ","
        rows = delimited_records(content, path, ["label"], prefer=prefer, unique=True)
    else:
        rows = document_records(content, path) if kind == ".json" else line_records(content, path)
    records = [values for _, values in rows]
    if not records:
        raise PredictionsError("there are no rows", where=path)
    names = list(dict.fromkeys(name for record in records for name in record))
    cut = [name for name in names if _HALF.search(name)]
    if cut:
        raise PredictionsError(f"the name {shown(cut[0])} holds half of a surrogate pair", where=path)
    columns: dict[str, pa.Array] = {}
    for name in names:
        values = [record.get(name) for record in records]
        part = name.rpartition("/")[2] if "/" in name else name
        if part == "label" or name.endswith("/prediction"):
            columns[name] = _labels(values, name, path)
        elif name.endswith("/confidence"):
            columns[name] = pa.array([_number(value, name, row, path) for row, value in enumerate(values)])
        elif name.endswith("/logits"):
            columns[name] = _logits(values, name, path)
        elif name == "split":
            columns[name] = pa.array(_named(values, label_name, name, path), pa.string())
        elif name == "slice":
            columns[name] = pa.array(_named(values, slice_names, name, path), pa.list_(pa.string()))
        else:
            columns[name] = pa.nulls(len(values))
    return pa.table(columns)


def _named(values: Sequence[Any], read: Callable[[Any], T], name: str, where: Path) -> list[T]:
    """Return what is read of each cell. Raises PredictionsError with the row, where one holds no name."""
    found: list[T] = []
    for row, value in enumerate(values):
        try:
            found.append(read(value))
        except ValueError as problem:
            raise PredictionsError(f"`{name}` in row {row} {problem}", where=where) from None
    return found


def _labels(values: Sequence[Any], name: str, where: Path) -> pa.Array:
    found = _named(values, name_in_cell, name, where)
    if all(value is None or _WHOLE.fullmatch(value) for value in found):
        return pa.array([None if value is None else int(value) for value in found], pa.int64())
    return pa.array(found, pa.string())


def _number(value: Any, name: str, row: int, where: Path) -> float | None:
    if isinstance(value, str):
        if is_missing(value):
            return None
        try:
            return number_in(value)
        except ValueError:
            hint = "these are percentages: divide them by 100" if value.strip().endswith("%") else None
            raise PredictionsError(
                f"`{name}` must hold numbers, not {shown(value)} in row {row}", where=where, hint=hint
            ) from None
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # beyond any float: infinite, as 1e999 is
            return math.inf if value > 0 else -math.inf
    raise PredictionsError(f"`{name}` must hold numbers, not {shown(value)} in row {row}", where=where)


def _logits(values: Iterable[Any], name: str, where: Path) -> pa.Array:
    """Return lists of numbers; `tables.scores` reads those that are written as text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError):
        raise PredictionsError(f"`{name}` must hold lists of numbers in every row", where=where) from None
