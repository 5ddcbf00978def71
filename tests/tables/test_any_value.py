"""Whatever a cell, a column's name or a value of JSON is, a table is read or refused by one of our errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import DataError, InputError, PredictionsError
from contract.predictions import LABELS_KEY
from tables.labelled import read_labelled
from tables.predictions import from_table, read_predictions

ROW: dict[str, Any] = {"text": "t", "label": "a", "m/prediction": "a", "m/confidence": 0.9}
NAMES = st.sampled_from([*ROW, "m/logits", "split", "slice", "columns", "data", "\ud800"]) | st.text(
    max_size=4
)
CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5),
    st.sampled_from([10**400, -(10**400), "\ud800", "a", "train", "[1e999]", "1" * 400, "['a', 0.5]"]),
)  # fmt: skip
VALUES = st.recursive(
    CELLS, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=3), max_leaves=4
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4).map(lambda row: {**ROW, **row}), max_size=3)
DOCUMENTS = (
    VALUES
    | st.dictionaries(NAMES, st.lists(VALUES, min_size=2, max_size=2), max_size=4)
    | st.fixed_dictionaries({"columns": st.lists(NAMES | VALUES, max_size=3), "data": st.just([[1, 2]])})
)


def nameless(path: Path) -> list[str]:
    """Read a table in every way, and return the refusals that do not name it."""
    told = []
    for read in (
        lambda: read_labelled(path),
        lambda: read_labelled(path, split="train"),
        lambda: read_labelled(path, text="text.0", label="label.a"),
        lambda: read_predictions(path),
    ):
        try:
            read()
        except InputError as problem:
            told.append(str(problem))
    return [words for words in told if not words.encode().startswith(str(path).encode())]


@settings(max_examples=60, deadline=None)
@given(ROWS, DOCUMENTS)
def test_any_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], document: object
) -> None:
    """Lines and documents, with numbers beyond any float, half characters, nesting and names of any kind."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "d.json").write_text(json.dumps(document))
    assert nameless(folder / "d.jsonl") == []
    assert nameless(folder / "d.json") == []


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=3), st.lists(CELLS, min_size=1, max_size=3))
def test_any_cell_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], cells: list[object]
) -> None:
    """Cells and headers of delimited text."""
    lines = [[*ROW, *names], [*map(str, ROW.values()), *map(str, cells)]]
    path = tmp_path_factory.mktemp("any") / "d.csv"
    path.write_text("\n".join(",".join(line) for line in lines), errors="replace")
    assert nameless(path) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({**ROW, "m/confidence": 10**400}), r"confidences lie in \[0, 1\]"),
        (json.dumps({**ROW, "m/logits": [10**400]}), "must hold lists of numbers"),
        (json.dumps({**ROW, "m/logits": "\ud800"}), "must hold lists of numbers"),
        ('{"columns": [{}], "data": [[1]]}', "must be a list of names"),
        ('{"columns": ["label", "label"], "data": [["a", "b"]]}', "one name twice"),
    ],
)
def test_what_no_table_can_hold_is_refused_by_its_rule(tmp_path: Path, content: str, said: str) -> None:
    """Numbers beyond any float, half a character in place of numbers, and columns that are no names."""
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(PredictionsError, match=said):
        read_predictions(tmp_path / "d.json")


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label", pa.array([1 << 61, 1], pa.timestamp("s")), "`label` holds a value beyond what is read"),
        ("split", pa.array([1 << 61, 1], pa.duration("s")), "`split` holds a value beyond what is read"),
        ("split", pa.array([["tune"], ["test"]]), "`split` in row 0 is"),
        ("slice", pa.array([[["s"]], [["t"]]]), "`slice` must hold a name"),
    ],
)
def test_columns_of_other_types_are_refused_by_name(column: str, values: pa.Array, said: str) -> None:
    """Times that Python has none for, and lists where names are."""
    table = pa.Table.from_pylist([ROW, ROW])
    table = table.drop_columns([c for c in table.column_names if c == column]).append_column(column, values)
    with pytest.raises(PredictionsError, match=said):
        from_table(table)


@pytest.mark.parametrize(
    ("names", "said"),
    [('["a", "x\\ny"]', "label set must be of one line"), ('["a", "a "]', "twice"), ('"ab"', "no list")],
)
def test_stored_labels_that_are_no_names_are_refused(names: str, said: str) -> None:
    """The label set in a table's metadata holds different names."""
    table = pa.Table.from_pylist([ROW]).replace_schema_metadata({LABELS_KEY: names.encode()})
    with pytest.raises(PredictionsError, match=said):
        from_table(table)


@pytest.mark.parametrize("number", [-2, 2, 5])
def test_class_numbers_beyond_the_names_are_no_class(number: int) -> None:
    """As labels they are refused, as answers they are wrong, also where a class is named after the number."""
    features = {"info": {"features": {"label": {"names": ["5", "-2"]}}}}
    rows = [{**ROW, "label": 0, "m/prediction": 0}, {**ROW, "label": 1, "m/prediction": number}]
    table = pa.Table.from_pylist(rows).replace_schema_metadata(
        {b"huggingface": json.dumps(features).encode()}
    )
    assert from_table(table).correct("m").tolist() == [True, False]
    with pytest.raises(PredictionsError, match="beyond the 2 classes"):
        from_table(table.set_column(1, "label", pa.array([0, number])))


def test_what_save_to_disk_wrote_is_read_by_its_own_names_alone(tmp_path: Path) -> None:
    """A description that is none, and class numbers beyond its names, are refused by file and row."""
    table = pa.table({"text": ["t", "u"], "label": [0, -2]})
    with pa.ipc.new_file(str(tmp_path / "d.arrow"), table.schema) as file:
        file.write_table(table)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
    (tmp_path / "dataset_info.json").write_text('{"features": {"label": {"names": ["a"]}}}')
    with pytest.raises(DataError, match=r"d\.arrow: row 2: `label` is -2; the file names 1 classes"):
        read_labelled(tmp_path)
    (tmp_path / "dataset_info.json").write_text("[]")
    with pytest.raises(DataError, match="not what save_to_disk writes"):
        read_labelled(tmp_path)
