"""The columns of a predictions table, each checked as it is read.

Every function raises PredictionsError, which names column, row and rule, and the file that `where` is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import PredictionsError

LABELS_KEY = b"sluice.labels"
SPLITS = ("tune", "certify", "test")

LabelValue = str | int


def label_set_of(
    table: pa.Table, variants: list[str], given: Sequence[LabelValue] | None, where: object
) -> list[LabelValue]:
    """Return the labels: those given, else those stored in the table, else those that occur."""
    if given is not None:
        return list(given)
    stored = (table.schema.metadata or {}).get(LABELS_KEY)
    if stored is not None:
        return list(json.loads(stored))
    occurring = pc.unique(table["label"].combine_chunks()).drop_null()
    if len(occurring) == 0:
        columns = [table[f"{name}/prediction"].combine_chunks() for name in variants]
        occurring = pc.unique(pa.concat_arrays([c.cast(columns[0].type) for c in columns])).drop_null()
    found: list[LabelValue] = sorted(occurring.to_pylist())
    if not found:
        raise PredictionsError("neither labels nor predictions hold a value", where=where)
    return found


def indices_of(
    column: pa.ChunkedArray,
    values: pa.Array,
    name: str,
    where: object,
    *,
    null: int | None,
    outside: int | None,
) -> NDArray[np.int64]:
    """Return [N] which of the values each row holds.

    Args:
        null: what stands for null; where it is None, null is refused.
        outside: what stands for another value; where it is None, that is refused.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (
        pa.types.is_integer(column.type)
        or pa.types.is_string(column.type)
        or pa.types.is_large_string(column.type)
        or pa.types.is_null(column.type)
    ):
        raise PredictionsError(f"`{name}` must hold integers or strings, not {column.type}", where=where)
    if null is None and column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise PredictionsError(f"`{name}` is null in row {row}", where=where)
    if pa.types.is_null(column.type):
        column = column.cast(values.type)
    try:
        index = pc.index_in(column, value_set=values.cast(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise PredictionsError(
            f"`{name}` holds {column.type}, the label set {values.type}: one type for all", where=where
        ) from None
    known: NDArray[np.int64] = pc.fill_null(index, -9).to_numpy().astype(np.int64)
    is_null = column.is_null().to_numpy()
    if null is not None:
        known[is_null] = null
    strange = (known == -9) & ~is_null
    if strange.any():
        if outside is None:
            row = int(np.flatnonzero(strange)[0])
            raise PredictionsError(f"`{name}` in row {row} is not one of the labels", where=where)
        known[strange] = outside
    return known


def confidence_of(table: pa.Table, name: str, where: object) -> NDArray[np.float64]:
    """Return [N] confidences of a variant."""
    column = f"{name}/confidence"
    if column not in table.column_names:
        raise PredictionsError(f"there is no `{column}` column", where=where)
    try:
        values: NDArray[np.float64] = pc.fill_null(table[column].cast(pa.float64()), math.nan).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise PredictionsError(f"`{column}` must hold numbers", where=where) from None
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        said = "NaN or null" if math.isnan(values[row]) else f"{values[row]:g}"
        raise PredictionsError(f"`{column}` in row {row} is {said}; confidences lie in [0, 1]", where=where)
    return values


def logits_of(table: pa.Table, name: str, classes: int, where: object) -> NDArray[np.float32] | None:
    """Return [N, classes] logits of a variant, where the table has them."""
    column = f"{name}/logits"
    if column not in table.column_names:
        return None
    array = table[column].combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    kind = array.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise PredictionsError(f"`{column}` must hold lists of numbers, not {kind}", where=where)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    if array.null_count or flat.size != len(array) * classes:
        raise PredictionsError(f"`{column}` must hold {classes} numbers in every row", where=where)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    logits: NDArray[np.float32] = flat.astype(np.float32).reshape(len(array), classes)
    if (lengths != classes).any() or not np.isfinite(logits).all():
        raise PredictionsError(f"`{column}` must hold {classes} finite numbers in every row", where=where)
    return logits


def split_of(table: pa.Table, where: object) -> NDArray[np.str_] | None:
    """Return [N] the split of every row, where the table says it."""
    if "split" not in table.column_names:
        return None
    values = np.array(table["split"].to_pylist(), dtype=object)
    for row, value in enumerate(values):
        if value not in SPLITS:
            raise PredictionsError(
                f"`split` in row {row} is {value!r}; it must be one of {', '.join(SPLITS)}", where=where
            )
    return values.astype(np.str_)


def slices_of(table: pa.Table, where: object) -> dict[str, NDArray[np.bool_]]:
    """Return masks [N] by name of slice."""
    if "slice" not in table.column_names:
        return {}
    kind = table["slice"].type
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise PredictionsError(
            f"`slice` must hold a name, or a list of names, in every row, not {table['slice'].type}",
            where=where,
        )
    rows = [[v] if isinstance(v, str) else (v or []) for v in table["slice"].to_pylist()]
    names = sorted({name for row in rows for name in row})
    return {name: np.array([name in row for row in rows]) for name in names}
