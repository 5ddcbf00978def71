"""Labelled texts from files of three kinds, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from tables.labelled import from_rows, read_labelled

ROWS = [
    {"text": "a, quoted\nline", "label": "007", "split": "test", "slice": "short"},
    {"text": "b", "label": "sport", "split": "tune", "slice": ""},
    {"text": "c", "label": "sport", "split": "test", "slice": ""},
]


def _write(path: Path) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        lines = [",".join(f'"{value}"' for value in row.values()) for row in ROWS]
        path.write_text("text,label,split,slice\n" + "\n".join(lines))
    return path


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_the_three_formats_read_alike(tmp_path: Path, name: str) -> None:
    """CSV, JSONL and Parquet give the same texts, labels (as strings), slices and rows."""
    data = read_labelled(_write(tmp_path / name))
    assert data.texts == ("a, quoted\nline", "b", "c")
    assert data.labels == ("007", "sport", "sport")
    assert data.slices == (("short",), (), ())
    assert data.rows == (0, 1, 2)
    assert data.classes == ("007", "sport")
    assert len(data.sha256) == 64


def test_a_split_keeps_the_rows_of_the_file(tmp_path: Path) -> None:
    """Only rows of the split are left, and they remember where they were."""
    data = read_labelled(_write(tmp_path / "d.csv"), split="test")
    assert data.rows == (0, 2)


def test_other_column_names_can_be_given(tmp_path: Path) -> None:
    """Text and label columns are settable; integers become strings; an unlabelled row is allowed."""
    pq.write_table(pa.table({"q": ["x", "y"], "intent": [3, None]}), tmp_path / "d.parquet")
    data = read_labelled(tmp_path / "d.parquet", text="q", label="intent")
    assert (data.texts, data.labels, data.slices, data.rows) == (("x", "y"), ("3", None), ((), ()), (0, 1))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("text\nx\n", "no column 'label'"),
        ("text,label\n", "no rows"),
        ("text,label\nx,a\n  ,b\n", "row 2: `text` is empty"),
        ("text,text,label\nx,y,a\n", "two columns are named 'text'"),
        ("text,label\nx,a,b\n", "row 1: 3 cells where the header has 2"),
    ],
)
def test_bad_files_are_refused_by_name_and_rule(tmp_path: Path, content: str, rule: str) -> None:
    """The error names the file and the rule that it breaks."""
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=rule) as caught:
        read_labelled(path)
    assert "bad.csv" in str(caught.value)


def test_missing_files_and_unknown_kinds_are_refused(tmp_path: Path) -> None:
    """A file that is not there and a kind that is not read are named."""
    with pytest.raises(DataError, match="no such file"):
        read_labelled(tmp_path / "none.csv")
    (tmp_path / "d.xlsx").write_text("")
    with pytest.raises(DataError, match="xlsx"):
        read_labelled(tmp_path / "d.xlsx")
    with pytest.raises(DataError, match="no row has split 'dev'"):
        read_labelled(_write(tmp_path / "d.csv"), split="dev")


def test_labels_of_another_type_are_refused(tmp_path: Path) -> None:
    """A label column of floats is refused."""
    pq.write_table(pa.table({"text": ["x"], "label": [0.5]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="name or an integer"):
        read_labelled(tmp_path / "d.parquet")


def test_rows_in_memory_are_checked_too() -> None:
    """Texts given as pairs obey the same rules."""
    assert from_rows([("x", "a"), ("y", None)]).labels == ("a", None)
    with pytest.raises(DataError, match="row 2: `text` is empty"):
        from_rows([("x", "a"), ("", "b")])
