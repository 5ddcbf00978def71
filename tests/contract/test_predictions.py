"""The predictions table: read as documented, refused by name when it breaks a rule."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.costs import Cost, parse_costs, read_costs, write_costs
from contract.errors import PredictionsError
from contract.predictions import OUTSIDE, UNLABELLED, Predictions, VariantPredictions, write_predictions
from tables.predictions import from_table, read_predictions


def _columns(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "label": ["a", "b", "a"],
        "m/prediction": ["a", "b", "b"],
        "m/confidence": [0.9, 0.8, 0.6],
    }
    return {k: v for k, v in (value | changes).items() if v is not None}


def test_strings_and_integers_are_both_labels() -> None:
    """Labels may be strings or integers; class indices follow the sorted label set."""
    strings = from_table(pa.table(_columns()))
    numbers = from_table(pa.table(_columns(label=[3, 7, 3], **{"m/prediction": [3, 7, 7]})))
    assert strings.labels == ("a", "b")
    assert numbers.labels == (3, 7)
    assert strings.correct("m").tolist() == numbers.correct("m").tolist() == [True, True, False]


def test_a_prediction_outside_the_label_set_counts_as_wrong_and_is_told_once() -> None:
    """A strange answer is wrong, and one line counts them."""
    found = from_table(pa.table(_columns(**{"m/prediction": ["a", "zzz", "b"]})))
    assert found.notes == ("1 of 3 predictions of 'm' are outside the label set and count as wrong: 'zzz'",)
    assert found.variants["m"].prediction.tolist() == [0, OUTSIDE, 1]


def test_unlabelled_rows_are_marked() -> None:
    """A null label is unlabelled, and a table without any label takes its set from the predictions."""
    some = from_table(pa.table(_columns(label=["a", None, "b"])))
    none = from_table(pa.table(_columns(label=pa.nulls(3, pa.string()))))
    assert some.label.tolist() == [0, UNLABELLED, 1]
    assert not some.labelled
    assert none.labels == ("a", "b")
    untyped = from_table(pa.table(_columns(label=pa.nulls(3))))
    assert untyped.label.tolist() == [UNLABELLED] * 3
    assert untyped.labels == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"label": None}, "no `label`"),
        ({"m/prediction": None}, "prediction"),
        ({"m/confidence": None}, "m/confidence"),
        ({"m/confidence": [0.9, 1.2, 0.1]}, "row 1 is 1.2"),
        ({"m/confidence": [0.9, math.nan, 0.1]}, "row 1 is NaN"),
        ({"m/confidence": ["x", "y", "z"]}, "numbers"),
        ({"m/confidence": [0.9, None, 0.1]}, "row 1 is NaN or null, though there is an answer"),
        ({"m/prediction": [1.5, 2.0, 3.0]}, "a name or an integer, not 1.5"),
        ({"split": ["tune", "train", "test"]}, "row 1 is 'train'"),
        ({"m/logits": [[1.0, 2.0], [1.0], [0.0, 1.0]]}, "2 numbers"),
        ({"m/logits": [[1.0, 2.0], [1.0, math.inf], [0.0, 1.0]]}, "finite"),
        ({"m/logits": [1.0, 2.0, 3.0]}, "lists of numbers, not double"),
        ({"m/logits": [["a", "b"], ["a", "b"], ["a", "b"]]}, "lists of numbers"),
        ({"slice": [1, 2, 3]}, "`slice` must hold a name"),
        ({"slice": [[1], [2], [3]]}, "`slice` must hold a name"),
        ({"other/confidence": [0.1, 0.2, 0.3]}, "other/prediction"),
    ],
)
def test_tables_that_break_a_rule_are_refused(changes: dict[str, Any], rule: str) -> None:
    """Each broken rule names its column, and its row where one is to blame."""
    with pytest.raises(PredictionsError, match=rule):
        from_table(pa.table(_columns(**changes)))


def test_a_duplicate_column_is_refused() -> None:
    """Two columns of one name are an error, not a guess."""
    table = pa.table([pa.array(["a"]), pa.array(["a"])], names=["label", "label"])
    with pytest.raises(PredictionsError, match="twice"):
        from_table(table)


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_written_predictions_read_back_equal(n: int, seed: int) -> None:
    """Labels, predictions, confidences, logits, splits and slices survive the disk."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)).astype(np.float32)
    table = Predictions(
        labels=("x", "y", "z"),
        label=rng.integers(-1, 3, n),
        variants={"v": VariantPredictions(logits.argmax(1), 1 - 0.6 * rng.random(n), logits)},
        split=rng.choice(np.array(["tune", "certify", "test"]), n),
        slices={"s": rng.random(n) < 0.5},
    )
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.parquet"
        write_predictions(path, table)
        back = read_predictions(path)
    assert back.labels == table.labels
    np.testing.assert_array_equal(back.label, table.label)
    np.testing.assert_array_equal(back.variants["v"].prediction, table.variants["v"].prediction)
    np.testing.assert_array_equal(back.variants["v"].confidence, table.variants["v"].confidence)
    np.testing.assert_array_equal(back.variants["v"].logits, logits)
    assert back.split is not None
    np.testing.assert_array_equal(back.split, table.split)
    for name, mask in back.slices.items():
        np.testing.assert_array_equal(mask, table.slices[name])


def test_predictions_without_a_label_are_written_as_none(tmp_path: Path) -> None:
    """An answer outside the label set reads back as no answer; with logits beside it nothing is written."""
    answers = np.array([OUTSIDE, 1]), np.array([0.0, 0.5])
    table = Predictions(("a", "b"), np.array([0, 1]), {"m": VariantPredictions(*answers)})
    write_predictions(tmp_path / "p.parquet", table)
    assert read_predictions(tmp_path / "p.parquet").variants["m"].prediction.tolist() == [OUTSIDE, 1]
    stray = VariantPredictions(*answers, np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(PredictionsError, match="'m' predicts outside"):
        write_predictions(tmp_path / "q.parquet", Predictions(("a", "b"), np.array([0, 1]), {"m": stray}))
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_rows_of_refuses_an_empty_split() -> None:
    """A split without rows is an error, not an empty result."""
    found = from_table(pa.table(_columns(split=["tune", "tune", "test"])))
    assert len(found.rows_of("tune")) == 2
    with pytest.raises(PredictionsError, match="certify"):
        found.rows_of("certify")


def test_files_that_are_not_parquet_are_refused(tmp_path: Path) -> None:
    """A missing file and a file of another kind are named."""
    with pytest.raises(PredictionsError, match="no such file"):
        read_predictions(tmp_path / "p.parquet")
    (tmp_path / "p.parquet").write_text("label\na\n")
    with pytest.raises(PredictionsError, match="Parquet"):
        read_predictions(tmp_path / "p.parquet")


def test_costs_read_back_and_ignore_unknown_keys(tmp_path: Path) -> None:
    """Costs survive the disk; keys that nobody knows are ignored; only usd_per_1k is required."""
    write_costs(tmp_path / "c.json", {"m": Cost(1.5, 3.0, None)})
    assert read_costs(tmp_path / "c.json") == {"m": Cost(1.5, 3.0, None)}
    assert parse_costs({"m": {"usd_per_1k": 2, "gflops": 1}}) == {"m": Cost(2.0)}


@pytest.mark.parametrize(
    "raw", [{}, [], {"m": {}}, {"m": {"usd_per_1k": -1}}, {"m": {"usd_per_1k": True}},
            {"m": {"usd_per_1k": 1, "latency_ms": "3"}}, {"m": {"usd_per_1k": math.inf}}],
)  # fmt: skip
def test_broken_costs_are_refused(raw: Any) -> None:
    """Missing, negative, infinite and non-numeric costs are refused."""
    with pytest.raises(PredictionsError):
        parse_costs(raw)


def test_label_set_stored_in_the_file_wins(tmp_path: Path) -> None:
    """The label order in the metadata decides what a logits column means."""
    table = pa.table(_columns()).replace_schema_metadata({b"sluice.labels": json.dumps(["b", "a"]).encode()})
    pq.write_table(table, tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").labels == ("b", "a")


def test_taking_rows_of_one_variant_keeps_their_order() -> None:
    """The rows of a variant come back in the order asked for, logits included."""
    variant = VariantPredictions(
        np.array([0, 1, 2]), np.array([0.1, 0.2, 0.3]), np.eye(3, dtype=np.float32)
    ).take(np.array([2, 0]))
    assert variant.prediction.tolist() == [2, 0]
    assert variant.confidence.tolist() == [0.3, 0.1]
    assert variant.logits is not None
    assert variant.logits.tolist() == [[0, 0, 1], [1, 0, 0]]
