"""Predictions tables in text files, streams and from the Hub: names are kept as they are written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from contract.errors import PredictionsError
from contract.predictions import UNLABELLED
from tables.predictions import from_table, read_predictions

HEADER = "label,m/prediction,m/confidence\n"
OBJECTS = [
    {"label": "a", "m/prediction": "a", "m/confidence": 0.9},
    {"label": "b", "m/prediction": "b", "m/confidence": 1},
]


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("d.csv", HEADER + "007,007,0.9\n10,10,0.8\n", ("007", "10")),
        ("d.csv", HEADER + "NA,NA,0.9\nDE,DE,0.8\n", ("DE", "NA")),
        ("d.csv", HEADER + "1e3,1e3,0.9\n2,2,0.8\n", ("1e3", "2")),
        ("d.csv", HEADER + "12345678901234567890123,12345678901234567890123,1\n2,2,1\n", None),
        ("d.csv", HEADER + "12:30:00,12:30:00,1\n2024-01-01,2024-01-01,1\n", None),
        ("d.csv", HEADER + "10,10.0,0.9\n9,9,0.8\n", (9, 10)),
        ("d.csv", (HEADER + "a,a,0.9\nb,b,0.8\n").encode("utf-16"), ("a", "b")),
        ("d.csv", "sep=;\nlabel;m/prediction;m/confidence\na;a;0,93\nb;b;1\n", ("a", "b")),
        ("d.csv", "# by me\n" + HEADER + "a,a,.9\nb,b,1e-1\n", ("a", "b")),
        ("d.csv.gz", HEADER + "a,a,0.9\nb,b,0.8\n", ("a", "b")),
        ("d.csv.zst", gzip.compress((HEADER + "a,a,0.9\nb,b,0.8\n").encode()), ("a", "b")),
        ("d.json", json.dumps(OBJECTS), ("a", "b")),
        ("d.json", json.dumps({k: {"0": OBJECTS[0][k], "1": OBJECTS[1][k]} for k in OBJECTS[0]}), ("a", "b")),
        ("d.jsonl", json.dumps(OBJECTS[0]) + json.dumps({**OBJECTS[1], "label": "b "}), ("a", "b")),
        ("d.jsonl", json.dumps({**OBJECTS[0], "label": 1, "m/prediction": 1.0}), (1,)),
    ],
)
def test_text_files_keep_the_names_that_they_write(
    tmp_path: Path, name: str, content: str | bytes, labels: tuple[str | int, ...] | None
) -> None:
    """No zero, decimal or time of day is guessed away; decimal commas, packing and JSON's forms are read."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_predictions(tmp_path / name)
    assert found.correct("m").all()
    assert labels in (None, found.labels)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.csv", HEADER + "a,a,93%\n", "'93%' in row 0(?s:.*)divide them by 100"),
        ("d.csv", HEADER + "a,a,sure\n", "must hold numbers, not 'sure' in row 0"),
        ("d.csv", HEADER + "a,a\n", "row 1: 2 cells where the header has 3"),
        ("d.csv", HEADER, "there are no rows"),
        ("d.csv", "label,m/prediction,m/confidence,m/confidence\na,a,1,0\n", "two columns are named 'm/conf"),
        (
            "d.jsonl",
            '{"label": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
            "row 1: .*nested too deeply",
        ),
        ("d.jsonl", '{"label": "a", "m/prediction": true, "m/confidence": [1]}', r"not \[1\] in row 0"),
        (
            "d.jsonl",
            '{"label": ["a", "b"], "m/prediction": "a", "m/confidence": 1}',
            "`label` in row 0 must be",
        ),
        ("d.parquet", "version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("d.parquet", HEADER, r"not a readable Parquet file(?s:.*)let its name end in \.csv"),
        ("d.xlsx", "PK", "save the sheet as CSV"),
    ],
)
def test_text_files_that_break_a_rule_name_the_row(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    """Percentages, words, columns twice and endless nesting are refused, not guessed at or crashed on."""
    (tmp_path / name).write_text(content)
    with pytest.raises(PredictionsError, match=said):
        read_predictions(tmp_path / name)


def test_names_of_classes_from_the_hub_are_those_of_the_predictions(tmp_path: Path) -> None:
    """Numbers of a ClassLabel get its names, in the order that logits stand in; predicted numbers too."""
    features = {"label": {"names": ["pos", "neg", "none"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for predicted in (["pos", "neg", "pos"], [0, 1, 0]):
        table = pa.table(
            {
                "label": pa.array([0, 1, -1]),
                "m/prediction": predicted,
                "m/confidence": [0.9, 0.8, 0.9],
                "m/logits": [[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 0.0, 0.0]],
            }
        ).replace_schema_metadata(metadata)
        found = from_table(table)
        assert found.labels == ("pos", "neg", "none")
        assert found.label.tolist() == [0, 1, UNLABELLED]
        assert found.correct("m").tolist() == [True, True, False]
    with pytest.raises(PredictionsError, match="beyond the 3 classes"):
        from_table(table.set_column(0, "label", pa.array([0, 1, 3])))


def test_an_arrow_stream_is_read(tmp_path: Path) -> None:
    """Streams have no footer; what spills to disk is often one."""
    table = pa.Table.from_pylist(OBJECTS)
    with pa.ipc.new_stream(str(tmp_path / "d.arrow"), table.schema) as stream:
        stream.write_table(table)
    assert read_predictions(tmp_path / "d.arrow").labels == ("a", "b")
