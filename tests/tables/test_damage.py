"""No damage of a file ends in anything but its rows or a refusal that names it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import DataError, PredictionsError
from contract.predictions import LABELS_KEY
from tables.labelled import read_labelled
from tables.predictions import from_table, read_predictions

ROWS: list[dict[str, Any]] = [
    {"text": "a é", "label": "x", "slice": ["s"]},
    {"text": "b", "label": None, "slice": None},
]
ANSWERS = [
    {"label": "a", "m/prediction": "a", "m/confidence": 0.9, "m/logits": [2.0, 0.0], "split": "tune"},
    {"label": "b", "m/prediction": "a", "m/confidence": 0.8, "m/logits": [1.0, 0.5], "split": "test"},
]
CSV = 'text,label,slice\n"a, ""q""\nz",x,s\nb\\"c,1.0,"[\'s\', \'t\']"\n'
ANSWERS_CSV = 'label,m/prediction,m/confidence,m/logits,split\na,a,0.9,"[2, 0]",tune\nb,a,0.8,[1 .5],test\n'


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows * 20), out)
    return out.getvalue()


def _arrow(rows: list[dict[str, Any]]) -> bytes:
    table, out = pa.Table.from_pylist(rows * 20), io.BytesIO()
    table = table.set_column(1, table.column_names[1], table.column(1).dictionary_encode())
    with pa.ipc.new_file(out, table.schema) as file:
        file.write_table(table)
    return out.getvalue()


WHOLE = {
    "d.csv": CSV.encode(),
    "d.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    "d.json": json.dumps(ROWS).encode(),
    "d.parquet": _parquet(ROWS),
    "d.arrow": _arrow(ROWS),
    "p.csv": ANSWERS_CSV.encode(),
    "p.jsonl": "\n".join(map(json.dumps, ANSWERS)).encode(),
    "p.parquet": _parquet(ANSWERS),
    "p.arrow": _arrow(ANSWERS),
}
PIECES = (
    b'"', b"\\", b"\n", b"\r", b"\xef\xbb\xbf", b"\0", b"\xff", b"[", b"}", b"NaN", b"1e999", b"\\ud800",
    b";", b"\t", b"#", b"sep=;\n", b"null", b"label", b"\xe2\x80\xa8", b"\x1a", b"/prediction", b"9" * 30,
)  # fmt: skip
PLACES = st.integers(0, 1 << 16)
DAMAGE = st.lists(st.tuples(PLACES, st.sampled_from(PIECES) | st.integers(-30, 255)), min_size=1, max_size=4)


def damaged(raw: bytes, damage: list[tuple[int, bytes | int]]) -> bytes:
    """Return bytes with pieces put in, single bytes changed, or stretches cut out (below zero)."""
    for place, what in damage:
        at = place % (len(raw) + 1)
        if isinstance(what, bytes):
            raw = raw[:at] + what + raw[at:]
        elif what < 0:
            raw = raw[:at] + raw[at - what :]
        else:
            raw = raw[:at] + bytes([what]) + raw[at + 1 :]
    return raw


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), DAMAGE)
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, damage: list[tuple[int, bytes | int]]
) -> None:
    """Labelled files and predictions of every kind; Arrow itself would end the process on some of them."""
    path = tmp_path_factory.mktemp("damage") / name
    path.write_bytes(damaged(WHOLE[name], damage))
    try:
        told = str(len(read_predictions(path) if name.startswith("p.") else read_labelled(path)))
    except (DataError, PredictionsError) as problem:
        told = str(problem)
    assert told.isdigit() or told.startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.csv", ANSWERS_CSV.replace("tune", "tu\x01ne"), "`split` in row 0 holds a control character"),
        ("p.jsonl", json.dumps({**ANSWERS[0], "m\ud800": 1}), "half of a surrogate pair"),
        ("p.jsonl", json.dumps({**ANSWERS[0], "slice": [0.5]}), "`slice` in row 0 must be a name"),
        ("p.jsonl", json.dumps({**ANSWERS[0], "m/logits": [1e300]}), "finite numbers"),
    ],
)
def test_what_fuzzing_found_is_refused_by_name(tmp_path: Path, name: str, content: str, said: str) -> None:
    """Names cut in two, splits and slices that are none, numbers beyond float32."""
    (tmp_path / name).write_text(content)
    with pytest.raises(PredictionsError, match=said):
        read_predictions(tmp_path / name)


def test_indices_beyond_a_dictionary_are_refused(tmp_path: Path) -> None:
    """Arrow trusts them, and reads memory that is not the file's."""
    indices = pa.Array.from_buffers(pa.int8(), 2, [None, pa.py_buffer(bytes([0, 100]))])
    label = pa.DictionaryArray.from_arrays(indices, pa.array(["a"]), safe=False)
    table = pa.table({"text": ["x", "y"], "label": label})
    with pa.ipc.new_file(str(tmp_path / "d.arrow"), table.schema) as file:
        file.write_table(table)
    with pytest.raises(DataError, match="not a readable Arrow file"):
        read_labelled(tmp_path / "d.arrow")


def test_a_split_that_is_no_name_is_listed(tmp_path: Path) -> None:
    """Asking for a split among odd ones lists them."""
    (tmp_path / "d.jsonl").write_text('{"text": "x", "label": "a", "split": ["a", "b"]}')
    with pytest.raises(DataError, match=r"no row has split 'test'(?s:.*)\['a', 'b'\]"):
        read_labelled(tmp_path / "d.jsonl", split="test")


def test_labels_in_the_metadata_that_are_none_are_refused() -> None:
    """A table whose stored label set was altered is refused by name."""
    table = pa.Table.from_pylist(ANSWERS).replace_schema_metadata({LABELS_KEY: b"["})
    with pytest.raises(PredictionsError, match=r"sluice\.labels of the table is no list"):
        from_table(table)
