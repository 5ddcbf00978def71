"""The predictions table: what variants say of the rows of a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.errors import PredictionsError
from contract.files import atomic_path

PREDICTIONS = "predictions.parquet"
UNLABELLED = -1
OUTSIDE = -2
LABELS_KEY = b"sluice.labels"
SPLITS = ("tune", "certify", "test")

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
        notes: lines about the file that its user should see, such as answers outside the label set.
    """

    labels: tuple[LabelValue, ...]
    label: NDArray[np.int64]
    variants: Mapping[str, VariantPredictions]
    split: NDArray[np.str_] | None = None
    slices: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    sha256: str = ""
    notes: tuple[str, ...] = ()

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


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a predictions table atomically, the label set in its metadata.

    A prediction outside the label set is written as null, a row without an answer, which counts as wrong.

    Raises:
        PredictionsError: when there are logits beside such a prediction, which has none.
    """
    labels = list(predictions.labels)
    for name, variant in predictions.variants.items():
        if variant.logits is not None and (variant.prediction < 0).any():
            raise PredictionsError(
                f"{name!r} predicts outside the label set, where it can have no logits", where=path
            )
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
        columns[f"{name}/prediction"] = pa.array(
            [labels[i] if i >= 0 else None for i in variant.prediction], type=pa.array(labels).type
        )
        columns[f"{name}/confidence"] = pa.array(variant.confidence)
        if variant.logits is not None:
            columns[f"{name}/logits"] = pa.array(list(variant.logits), type=pa.list_(pa.float32()))
    table = pa.table(columns).replace_schema_metadata({LABELS_KEY: json.dumps(labels).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
