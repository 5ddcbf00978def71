"""Files as people bring them: from the Hub, pandas, Spark, annotation tools; and what is refused of them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.datasets.sources import read_source
from compress.recipes.data_part import DataPart
from contract.errors import DataError
from tables.labelled import Labelled, read_labelled

CLASSES = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
HUB = {b"huggingface": json.dumps(CLASSES).encode()}


def _pairs(found: Labelled) -> list[tuple[str, str | None]]:
    return list(zip(found.texts, found.labels, strict=True))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", '[{"text": "x", "label": "a"}, {"text": "y", "label": null}]'),
        ("d.json", '{"data": [{"text": "x", "label": "a"}, {"text": "y", "label": null}]}'),
        ("d.json", '{"text": {"0": "x", "1": "y"}, "label": {"0": "a", "1": null}}'),
        ("d.json", '{"0": {"text": "x", "label": "a"}, "1": {"text": "y", "label": null}}'),
        ("d.json", '{"columns": ["text", "label"], "index": [0, 1], "data": [["x", "a"], ["y", null]]}'),
        ("d.json", '{"text": ["x", "y"], "label": ["a", null]}'),
        ("d.json", '{"text": "x", "label": "a"}\n{"text": "y", "label": NaN}\n'),
        ("d.ndjson", '\ufeff{"text": "x", "label": "a"}\r\n\r\n{"text": "y"}'),
        ("d.jsonl", '{"text": "x", "label": ["a"]}\n{"text": "y", "label": []}'.replace("[]", "null")),
        ("d.tsv", "text\tlabel\nx\ta\ny\t\n"),
    ],
)
def test_every_form_of_a_table_gives_its_rows(tmp_path: Path, name: str, content: str) -> None:
    """JSON in each of pandas's orientations, JSON lines under any ending, and TSV."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert _pairs(read_labelled(path)) == [("x", "a"), ("y", None)]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array(["a ", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array([b"a", b"b"]), ["a", "b"]),
        (pa.array([True, None]), ["true", None]),
        (pa.array([1.0, float("nan")]), ["1", None]),
        (pa.array([datetime.date(2024, 1, 1), None]), ["2024-01-01", None]),
    ],
)
def test_parquet_of_every_type_is_read(tmp_path: Path, labels: Any, names: list[str | None]) -> None:
    """What pandas, polars, Spark and Arrow write for labels gives names; text may be any kind of string."""
    for text in (pa.string(), pa.large_string(), pa.string_view(), pa.binary()):
        pq.write_table(
            pa.table({"text": pa.array(["x", "y"]).cast(text), "label": labels}), tmp_path / "d.parquet"
        )
        assert _pairs(read_labelled(tmp_path / "d.parquet")) == [("x", names[0]), ("y", names[1])]


def test_a_folder_of_hub_shards_keeps_the_names_of_classes(tmp_path: Path) -> None:
    """Shards are read in order; ClassLabel numbers get their names, -1 is none; splits come from names."""
    for number in (2, 10, 1):
        table = pa.table({"text": [f"text {number}"], "label": [number % 2]}).replace_schema_metadata(HUB)
        pq.write_table(table, tmp_path / f"train-{number}-of-10.parquet")
    (tmp_path / "README.md").write_text("")
    table = pa.table({"text": ["held out"], "label": [-1]}).replace_schema_metadata(HUB)
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    assert _pairs(read_labelled(tmp_path, split="train")) == [
        ("text 1", "pos"),
        ("text 2", "neg"),
        ("text 10", "neg"),
    ]
    assert _pairs(read_labelled(tmp_path, split="test")) == [("held out", None)]
    rows = read_source(f"{tmp_path}@train", DataPart(file="none"))
    assert [row.label for row in rows] == ["pos", "neg", "neg"]
    bad = pa.table({"text": ["x"], "label": [7]}).replace_schema_metadata(HUB)
    pq.write_table(bad, tmp_path / "train-11-of-10.parquet")
    with pytest.raises(DataError, match="row 1: `label` is 7; the file names 2 classes"):
        read_labelled(tmp_path)


def test_what_spark_writes_by_value_is_read(tmp_path: Path) -> None:
    """A folder per label, as partitionBy("label") makes them, beside _SUCCESS and checksums."""
    for label, text in (("pos", "x"), ("card%20arrival", "y")):
        (tmp_path / f"label={label}").mkdir()
        pq.write_table(
            pa.table({"text": [text]}), tmp_path / f"label={label}" / "part-00000-c000.snappy.parquet"
        )
        (tmp_path / f"label={label}" / ".part-00000-c000.snappy.parquet.crc").write_bytes(b"x")
    (tmp_path / "_SUCCESS").write_bytes(b"")
    assert sorted(_pairs(read_labelled(tmp_path))) == [("x", "pos"), ("y", "card arrival")]


def test_what_save_to_disk_writes_is_read(tmp_path: Path) -> None:
    """Arrow shards of the datasets library, alone and by split, with the names of their classes."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    data = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": [1, 0, 1]}, features=features)
    data.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(tmp_path / "two")
    data.to_parquet(tmp_path / "hub.parquet")
    rows = [("x", "pos"), ("y", "neg"), ("z", "pos")]
    assert _pairs(read_labelled(tmp_path / "one")) == _pairs(read_labelled(tmp_path / "hub.parquet")) == rows
    assert _pairs(read_labelled(tmp_path / "two", split="test")) == [("y", "neg")]


def test_annotation_tools_are_read_by_paths(tmp_path: Path) -> None:
    """Label Studio keeps text and choice inside: a dotted path leads there."""
    tasks = [
        {"data": {"text": text}, "annotations": [{"result": [{"value": {"choices": [label]}}]}]}
        for text, label in (("x", "Positive"), ("y", "Negative"))
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    found = read_labelled(path, text="data.text", label="annotations.0.result.0.value.choices")
    assert _pairs(found) == [("x", "Positive"), ("y", "Negative")]


def test_slices_are_names_or_lists_of_names(tmp_path: Path) -> None:
    """A cell holds a name, a list, or a list as pandas writes it to CSV; empty is none."""
    (tmp_path / "d.jsonl").write_text(
        '{"text": "x", "label": 1, "slice": ["a", "b"]}\n{"text": "y", "label": 2, "slice": null}\n'
        '{"text": "z", "label": 2, "slice": "a "}'
    )
    (tmp_path / "d.csv").write_text("text,label,kind\nx,1,\"['a', 'b']\"\ny,2,\nz,2,a\n")
    expected = (("a", "b"), (), ("a",))
    assert read_labelled(tmp_path / "d.jsonl").slices == expected
    assert read_labelled(tmp_path / "d.csv", slice_column="kind").slices == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            r'{"text": "cut \ud83d", "label": "a"}',
            r"row 2: `text` holds half of a surrogate pair \(U\+D83D\)",
        ),
        (r'{"text": "x", "label": "\ude00"}', "row 2: `label` holds half of a surrogate pair"),
        ('{"text": "x", "label": ["a", "b"]}', "row 2: `label` must be one label, not a list of 2"),
        (r'{"text": "a\u0000b", "label": "a"}', "row 2: `text` holds a NUL"),
        ('{"text": " ", "label": 0.5}', "row 2: `text` is empty; `label` must be a name or an integer"),
        ('{"text": "x", "label": "[1, 0, 1]"}', "row 2: `label` must be one label, not a list of 3"),
        ("{'text': 'x'}", "row 2: not JSON"),
    ],
)
def test_a_bad_line_is_named_by_file_row_and_rule(tmp_path: Path, content: str, said: str) -> None:
    """Half a surrogate pair, several labels, NUL characters and broken lines."""
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "fine", "label": "a"}\n' + content)
    with pytest.raises(DataError, match=rf"d\.jsonl: {said}"):
        read_labelled(path)


def test_bad_rows_are_listed_at_once(tmp_path: Path) -> None:
    """The first twenty rows that break a rule are named, and how many more there are."""
    path = tmp_path / "d.csv"
    path.write_text("text,label\n" + "fine,a\n ,b\n" * 23)
    with pytest.raises(DataError, match=r"23 rows break a rule") as caught:
        read_labelled(path)
    assert str(caught.value).count("`text` is empty") == 20
    assert "row 40" in str(caught.value)
    assert "and 3 more" in str(caught.value)


def test_labels_written_in_other_ways_are_told(tmp_path: Path) -> None:
    """Unseen characters and Unicode forms are made one and said; labels apart by case alone are named."""
    path = tmp_path / "d.csv"
    path.write_text("text,label\nw,cafe\u0301\nx,caf\u00e9\ny,pos\u200b\nz,Pos\n", encoding="utf-8")
    found = read_labelled(path)
    assert found.labels == ("caf\u00e9", "caf\u00e9", "pos", "Pos")
    assert "2 labels were written in another way" in found.notes[0]
    assert "'Pos' and 'pos'" in found.notes[1]


@pytest.mark.parametrize("name", ["d.xlsx", "d.zip", "d.pkl", "d.parquet.gz", "d"])
def test_other_kinds_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    """Sheets, archives and pickles name the next step."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"are not read(?s:.*)try:"):
        read_labelled(tmp_path / name)


LABELS = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from(["pos ", "a\u0301", "2024-01-01", "1.0", "True", "007", "x\u200b"]),
)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["x", "  y ", 'say "hi", or', "ü\n"]), LABELS), min_size=1, max_size=6
    )
)
def test_all_kinds_and_both_commands_agree(rows: list[tuple[str, Any]], tmp_path_factory: Any) -> None:
    """One table in CSV, JSONL, JSON and Parquet gives one list of rows, to compress and to loadtest."""
    folder = tmp_path_factory.mktemp("d")
    records = [{"text": text, "label": label} for text, label in rows]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "d.json").write_text(json.dumps(records))
    cells = [[f'"{str(value).replace(chr(34), chr(34) * 2)}"' for value in row] for row in rows]
    (folder / "d.csv").write_text(
        "text;label\n" + "\n".join(";".join(row) for row in cells), encoding="utf-8"
    )
    pq.write_table(
        pa.table({"text": [r[0] for r in rows], "label": [str(r[1]) for r in rows]}), folder / "d.parquet"
    )
    found = [read_labelled(folder / name) for name in ("d.jsonl", "d.json", "d.csv", "d.parquet")]
    assert all(_pairs(one) == _pairs(found[0]) for one in found)
    for name in ("d.jsonl", "d.csv", "d.parquet"):
        learnt = read_source(str(folder / name), DataPart(file="none"))
        assert [(row.text, row.label) for row in learnt] == _pairs(found[0])
