"""The predictions table and the cost table: what a router needs to know about variants, and nothing else."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.errors import PredictionsError
from contract.files import atomic_path, read_json, sha256_of_file, write_json

PREDICTIONS, COSTS = "predictions.parquet", "costs.json"
LABELS_KEY = b"sluice.labels"
SPLITS = ("tune", "certify", "test")
UNLABELLED = -1
OUTSIDE = -2

LabelValue = str | int


@dataclass(frozen=True)
class VariantPredictions:
    """One variant on N rows.

    Attributes:
        prediction: [N] class index, OUTSIDE where it is not a label.
        confidence: [N] in [0, 1].
        logits: [N, C], where the table has them.
    """

    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]
    logits: NDArray[np.float32] | None = None

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> VariantPredictions:
        """Return the rows of a boolean mask or index array, in that order."""
        return VariantPredictions(
            self.prediction[rows], self.confidence[rows], None if self.logits is None else self.logits[rows]
        )


@dataclass(frozen=True)
class Predictions:
    """N rows of one data set seen by several variants.

    Attributes:
        labels: the label set; class indices point into it, logits columns follow it.
        label: [N] class index, UNLABELLED where null.
        variants: by name.
        split: [N] of tune, certify, test; None when the table does not say.
        slices: name to boolean mask [N].
        sha256: hash of the file it was read from ("" when built in memory).
    """

    labels: tuple[LabelValue, ...]
    label: NDArray[np.int64]
    variants: Mapping[str, VariantPredictions]
    split: NDArray[np.str_] | None = None
    slices: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the variants."""
        return tuple(self.variants)

    @property
    def labelled(self) -> bool:
        """Whether every row has a label."""
        return bool((self.label != UNLABELLED).all())

    def correct(self, variant: str) -> NDArray[np.bool_]:
        """Return [N] whether the variant is right; unlabelled rows count as wrong."""
        right: NDArray[np.bool_] = self.variants[variant].prediction == self.label
        return right

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Predictions:
        """Return the rows of a boolean mask or index array, in that order."""
        return replace(
            self,
            label=self.label[rows],
            variants={name: v.take(rows) for name, v in self.variants.items()},
            split=None if self.split is None else self.split[rows],
            slices={name: mask[rows] for name, mask in self.slices.items()},
        )

    def rows_of(self, *splits: str) -> Predictions:
        """Return the rows whose split is one of those named.

        Raises:
            PredictionsError: when the table has no split column or a split is empty.
        """
        if self.split is None:
            raise PredictionsError("the table has no `split` column")
        for name in splits:
            if not (self.split == name).any():
                raise PredictionsError(f"the split {name!r} is empty")
        return self.take(np.isin(self.split, splits))


def read_predictions(path: Path, *, labels: Sequence[LabelValue] | None = None) -> Predictions:
    """Read and check a predictions table.

    Args:
        path: a Parquet file with `label`, optional `split` and `slice`, and `V/prediction`, ... per variant.
        labels: the label set; by default the one stored in the file, else the labels that occur.

    Raises:
        PredictionsError: naming file, column and rule.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise PredictionsError("there is no such file", where=path) from None
    except (pa.ArrowInvalid, OSError) as problem:
        raise PredictionsError(f"not a readable Parquet file: {problem}", where=path) from None
    predictions = from_table(table, where=path, labels=labels)
    return replace(predictions, sha256=sha256_of_file(path))


def from_table(
    table: pa.Table, *, where: object = "predictions", labels: Sequence[LabelValue] | None = None
) -> Predictions:
    """Return checked predictions from an Arrow table. Raises PredictionsError."""
    names = table.column_names
    for name in names:
        if names.count(name) > 1:
            raise PredictionsError(f"the column {name!r} occurs twice", where=where)
    if "label" not in names:
        raise PredictionsError("there is no `label` column", where=where, hint=f"columns: {', '.join(names)}")
    if table.num_rows == 0:
        raise PredictionsError("the table has no rows", where=where)
    variants = [name.removesuffix("/prediction") for name in names if name.endswith("/prediction")]
    if not variants:
        raise PredictionsError("there is no `V/prediction` column for any variant V", where=where)
    for name in names:
        variant, slash, part = name.rpartition("/")
        if slash and part in {"confidence", "logits"} and variant not in variants:
            raise PredictionsError(f"`{name}` has no `{variant}/prediction` beside it", where=where)

    label_set = _label_set(table, variants, labels, where)
    values = pa.array(label_set)
    label = _indices(table["label"], values, "label", where, null=UNLABELLED, outside=None)
    found: dict[str, VariantPredictions] = {}
    for name in variants:
        prediction = _indices(
            table[f"{name}/prediction"], values, f"{name}/prediction", where, null=None, outside=OUTSIDE
        )
        strangers = int((prediction == OUTSIDE).sum())
        if strangers:
            warnings.warn(
                f"{where}: {strangers} of {table.num_rows} predictions of {name!r} are outside the label set "
                "and count as wrong",
                stacklevel=2,
            )
        found[name] = VariantPredictions(
            prediction, _confidence(table, name, where), _logits(table, name, len(label_set), where)
        )
    return Predictions(
        labels=tuple(label_set),
        label=label,
        variants=found,
        split=_split(table, where),
        slices=_slices(table, where),
    )


def _label_set(
    table: pa.Table, variants: list[str], given: Sequence[LabelValue] | None, where: object
) -> list[LabelValue]:
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


def _indices(
    column: pa.ChunkedArray,
    values: pa.Array,
    name: str,
    where: object,
    *,
    null: int | None,
    outside: int | None,
) -> NDArray[np.int64]:
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


def _confidence(table: pa.Table, name: str, where: object) -> NDArray[np.float64]:
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


def _logits(table: pa.Table, name: str, classes: int, where: object) -> NDArray[np.float32] | None:
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


def _split(table: pa.Table, where: object) -> NDArray[np.str_] | None:
    if "split" not in table.column_names:
        return None
    values = np.array(table["split"].to_pylist(), dtype=object)
    for row, value in enumerate(values):
        if value not in SPLITS:
            raise PredictionsError(
                f"`split` in row {row} is {value!r}; it must be one of {', '.join(SPLITS)}", where=where
            )
    return values.astype(np.str_)


def _slices(table: pa.Table, where: object) -> dict[str, NDArray[np.bool_]]:
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


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a predictions table atomically, the label set in its metadata.

    Raises:
        PredictionsError: when a prediction is outside the label set: a table has no name for it.
    """
    labels = list(predictions.labels)
    for name, variant in predictions.variants.items():
        if (variant.prediction < 0).any():
            raise PredictionsError(f"{name!r} predicts outside the label set", where=path)
    lookup = np.array([*labels, None], dtype=object)
    columns: dict[str, Any] = {
        "label": pa.array(lookup[predictions.label].tolist(), type=pa.array(labels).type)
    }
    if predictions.split is not None:
        columns["split"] = pa.array(predictions.split.tolist())
    if predictions.slices:
        masks = predictions.slices.items()
        columns["slice"] = pa.array(
            [[name for name, mask in masks if mask[row]] for row in range(len(predictions))],
            type=pa.list_(pa.string()),
        )
    for name, variant in predictions.variants.items():
        columns[f"{name}/prediction"] = pa.array([labels[i] for i in variant.prediction])
        columns[f"{name}/confidence"] = pa.array(variant.confidence)
        if variant.logits is not None:
            columns[f"{name}/logits"] = pa.array(list(variant.logits), type=pa.list_(pa.float32()))
    table = pa.table(columns).replace_schema_metadata({LABELS_KEY: json.dumps(labels).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


@dataclass(frozen=True)
class Cost:
    """What 1,000 requests answered by one variant cost; None is unknown."""

    usd_per_1k: float
    latency_ms: float | None = None
    energy_wh_per_1k: float | None = None


def read_costs(path: Path) -> dict[str, Cost]:
    """Read costs.json. Raises PredictionsError naming file, variant and rule."""
    return parse_costs(read_json(path, error=PredictionsError), where=path)


def parse_costs(raw: Any, *, where: object = "costs") -> dict[str, Cost]:
    """Return costs by variant from their JSON form. Raises PredictionsError."""
    if not isinstance(raw, dict) or not raw:
        raise PredictionsError("costs are a JSON object: variant to costs", where=where)
    return {name: _cost(name, entry, where) for name, entry in raw.items()}


def _cost(name: str, entry: Any, where: object) -> Cost:
    if not isinstance(entry, dict) or "usd_per_1k" not in entry:
        raise PredictionsError(f"{name!r} has no usd_per_1k", where=where)
    figures: dict[str, float | None] = {}
    for key in ("usd_per_1k", "latency_ms", "energy_wh_per_1k"):
        value = entry.get(key)
        if value is None and key != "usd_per_1k":
            figures[key] = None
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise PredictionsError(
                f"{name!r}: {key} must be a number of 0 or more, not {value!r}", where=where
            )
        else:
            figures[key] = float(value)
    return Cost(
        usd_per_1k=figures["usd_per_1k"] or 0.0,
        latency_ms=figures["latency_ms"],
        energy_wh_per_1k=figures["energy_wh_per_1k"],
    )


def write_costs(path: Path, costs: Mapping[str, Cost]) -> None:
    """Write costs.json atomically."""
    write_json(
        path,
        {
            name: {
                "usd_per_1k": c.usd_per_1k,
                "latency_ms": c.latency_ms,
                "energy_wh_per_1k": c.energy_wh_per_1k,
            }
            for name, c in costs.items()
        },
    )
