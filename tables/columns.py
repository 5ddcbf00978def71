"""The columns of a predictions table that hold labels, splits and slices, each checked as it is read.

Every function raises PredictionsError, which names column, rows and rule, and the file that `where` is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import PredictionsError
from contract.predictions import LABELS_KEY, OUTSIDE, SPLITS, UNLABELLED, LabelValue
from tables.labels import label_name

SHOWN_ROWS = 20
SHOWN_NAMES = 12
LEAST_FIT = 0.05


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of labels: its names, codes [N] into them (-1 is null), and whether they were numbers."""

    names: tuple[str, ...]
    codes: NDArray[np.int64]
    numeric: bool

    @property
    def used(self) -> list[str]:
        """The names that rows hold (a dictionary may name more)."""
        return [self.names[code] for code in np.unique(self.codes[self.codes >= 0]).tolist()]


def rows_text(mask: NDArray[np.bool_]) -> str:
    """Return "3 of 40 rows (first: 0, 7, 9)" for the rows of a mask."""
    rows = np.flatnonzero(mask)
    shown = ", ".join(map(str, rows[:SHOWN_ROWS].tolist())) + (", ..." if len(rows) > SHOWN_ROWS else "")
    return f"{len(rows)} of {len(mask)} rows ({'row' if len(rows) == 1 else 'first'} {shown})"


def names_text(names: Sequence[object]) -> str:
    """Return the first names of a set, as messages quote them."""
    shown = ", ".join(repr(name) for name in names[:SHOWN_NAMES])
    return shown + (f", ... ({len(names)} in all)" if len(names) > SHOWN_NAMES else "")


def flat(column: pa.ChunkedArray) -> pa.Array:
    """Return the column as one array, views decoded and dictionaries unified."""
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    elif pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    if column.num_chunks == 0:
        return pa.array([], type=column.type)
    whole = column.unify_dictionaries().combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def values_of(array: pa.Array, name: str, where: object) -> list[Any]:
    """Return the values of a column. Raises PredictionsError for a time that Python has none for."""
    try:
        return list(array.to_pylist())
    except (OverflowError, ValueError) as problem:
        raise PredictionsError(
            f"`{name}` holds a value beyond what is read ({array.type}): {problem}", where=where
        ) from None


def coded(column: pa.ChunkedArray, name: str, where: object) -> Coded:
    """Return the labels of a column of any type that can hold them: text, whole numbers, truth values."""
    array = flat(column)
    if pa.types.is_null(array.type):
        return Coded((), np.full(len(array), -1, dtype=np.int64), numeric=False)
    if pa.types.is_nested(array.type):
        raise PredictionsError(f"`{name}` must hold integers or strings, not {array.type}", where=where)
    if not pa.types.is_dictionary(array.type):
        if pa.types.is_float16(array.type):
            array = array.cast(pa.float32())
        array = array.dictionary_encode()
    kind = array.type.value_type
    found: dict[str, int] = {}
    places = []
    for value in values_of(flat(pa.chunked_array([array.dictionary])), name, where):
        try:
            text = label_name(value)
        except ValueError as problem:
            raise PredictionsError(f"`{name}` {problem}", where=where) from None
        places.append(-1 if text is None else found.setdefault(text, len(found)))
    index = pc.fill_null(array.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    codes = np.append(np.asarray(places, dtype=np.int64), -1)[index]
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return Coded(tuple(found), codes, numeric)


def label_set_of(
    table: pa.Table,
    label: Coded,
    predictions: Sequence[Coded],
    given: Sequence[LabelValue] | None,
    where: object,
) -> list[LabelValue]:
    """Return the labels: those given, else those stored in the table, else those that occur."""
    labels = _labels_known(table, given, where)
    if labels is None:
        return _labels_that_occur(label, predictions, where)
    names = []
    for known in labels:
        try:
            names.append(label_name(known))
        except ValueError as problem:
            raise PredictionsError(f"a name in the label set {problem}", where=where) from None
    if len(set(names)) < len(names):
        raise PredictionsError(f"the label set holds one name twice: {names_text(labels)}", where=where)
    return labels


def _labels_known(
    table: pa.Table, given: Sequence[LabelValue] | None, where: object
) -> list[LabelValue] | None:
    if given is not None:
        return list(given)
    stored = (table.schema.metadata or {}).get(LABELS_KEY)
    if stored is None:
        return None
    try:
        found = json.loads(stored)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise PredictionsError(
            f"the metadata {LABELS_KEY.decode()} of the table is no list of labels", where=where
        )
    return [name if isinstance(name, int) else str(name) for name in found]


def _labels_that_occur(label: Coded, predictions: Sequence[Coded], where: object) -> list[LabelValue]:
    sources = [label] if label.used else list(predictions)
    names = sorted({name for source in sources for name in source.used})
    if not names:
        raise PredictionsError("neither labels nor predictions hold a value", where=where)
    if all(source.numeric for source in sources):
        return sorted(int(name) for name in names)
    return list(names)


def labels_of(column: Coded, labels: Sequence[LabelValue], where: object) -> NDArray[np.int64]:
    """Return [N] the class index of every row's label, UNLABELLED where it is null."""
    known = _positions(column, labels)
    strange = known == OUTSIDE
    if strange.any():
        names = sorted({column.names[code] for code in column.codes[strange].tolist()})
        raise PredictionsError(
            f"`label` is not one of the labels in {rows_text(strange)}: {names_text(names)}",
            where=where,
            hint=f"labels: {names_text(list(labels))}",
        )
    return known


def predictions_of(
    column: Coded, labels: Sequence[LabelValue], variant: str, where: object
) -> tuple[NDArray[np.int64], list[str]]:
    """Return [N] class indices, OUTSIDE where the answer is no label or missing, and lines that say so.

    Raises:
        PredictionsError: when under LEAST_FIT of the answers are labels: two sets of names, not errors.
    """
    known = _positions(column, labels)
    missing, strange = known == UNLABELLED, known == OUTSIDE
    notes = []
    answers = int((~missing).sum())
    if answers == 0:
        raise PredictionsError(f"`{variant}/prediction` is null in every row", where=where)
    if (~missing & ~strange).sum() < LEAST_FIT * answers:
        raise PredictionsError(
            f"{int(strange.sum())} of {answers} answers of {variant!r} are none of the labels: it answers "
            f"{names_text(sorted(column.used))}, the labels are {names_text(list(labels))}",
            where=where,
            hint=_remedy(column.used, labels, variant),
        )
    if strange.any():
        names = sorted({column.names[code] for code in column.codes[strange].tolist()})
        notes.append(
            f"{int(strange.sum())} of {len(known)} predictions of {variant!r} are outside the label set and "
            f"count as wrong: {names_text(names)}"
        )
    if missing.any():
        notes.append(
            f"{variant!r} has no answer in {rows_text(missing)}: wrong there, and taken to be unsure"
        )
    return np.where(missing, OUTSIDE, known), notes


def _positions(column: Coded, labels: Sequence[LabelValue]) -> NDArray[np.int64]:
    place = {label_name(label): index for index, label in enumerate(labels)}
    table = np.array([*(place.get(name, OUTSIDE) for name in column.names), UNLABELLED], dtype=np.int64)
    return np.asarray(table[column.codes])


def _remedy(names: Sequence[str], labels: Sequence[LabelValue], variant: str) -> str:
    folded = {str(label).casefold().strip() for label in labels}
    if all(name.casefold() in folded for name in names):
        return f"write `{variant}/prediction` in the labels' upper and lower case"
    prefix = "LABEL_" if all(name.startswith("LABEL_") for name in names) else ""
    if prefix or all(name.isdigit() for name in names):
        known = ", ".join(f"{prefix}{i} is {label!r}" for i, label in enumerate(labels[:3]))
        return (
            f"these are places in the model's own list of labels: write its names (id2label) into "
            f"`{variant}/prediction`; if the model has them in this order, {known}"
        )
    return f"rename the values of `{variant}/prediction`, or of `label`, so that both use the same names"


def split_of(table: pa.Table, where: object) -> NDArray[np.str_] | None:
    """Return [N] the split of every row, where the table says it."""
    if "split" not in table.column_names:
        return None
    values = values_of(flat(table["split"]), "split", where)
    strange = np.array([value not in SPLITS for value in values])
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        raise PredictionsError(
            f"`split` in row {row} is {values[row]!r}; it must be one of {', '.join(SPLITS)}: "
            f"so in {rows_text(strange)}",
            where=where,
        )
    return np.array(values, dtype=np.str_)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def slices_of(table: pa.Table, where: object) -> dict[str, NDArray[np.bool_]]:
    """Return masks [N] by name of slice."""
    if "slice" not in table.column_names:
        return {}
    array = flat(table["slice"])
    kind = _plain(array.type)
    kind = _plain(kind.value_type) if is_list(kind) else kind
    if not (is_text(kind) or pa.types.is_null(kind)):
        raise PredictionsError(
            f"`slice` must hold a name, or a list of names, in every row, not {array.type}", where=where
        )
    rows = [[v] if isinstance(v, str) else (v or []) for v in array.to_pylist()]
    names = sorted({name for row in rows for name in row if name})
    members = [set(row) for row in rows]
    return {name: np.array([name in row for row in members]) for name in names}


def is_list(kind: pa.DataType) -> bool:
    """Whether a type holds lists, of whatever width and layout."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
