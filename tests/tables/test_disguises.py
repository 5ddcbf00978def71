"""Files that are not what their names say, or that were broken on the way, say so with the next step."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from tables.labelled import Labelled, read_labelled

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
CSV = "text,label\nschön,a\n"


def _read(folder: Path, name: str, content: bytes | str) -> Labelled:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labelled(path)


def _parquet(folder: Path) -> bytes:
    pq.write_table(pa.table({"text": ["x"] * 9, "label": ["a"] * 9}), folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.parquet", POINTER, "Git LFS pointer(?s:.*)git lfs pull"),
        ("d.csv", POINTER, "Git LFS pointer"),
        ("d.csv.gz", gzip.compress(POINTER), "Git LFS pointer"),
        ("d.jsonl", PAGE, "web page(?s:.*)needs a login"),
        ("d.csv.gz", PAGE, "web page"),
        ("d.csv", b"PK\x03\x04" + bytes(60), "zip archive or an Excel sheet"),
        ("d.arrow", b"FEA1" + bytes(60), r"Feather file of version 1(?s:.*)to_parquet"),
        ("d.parquet", b"", "the file is empty"),
        ("d.parquet", b"x" * 40, "not a readable Parquet file"),
        ("d.csv", CSV.encode("utf-16-le"), "line 2 is not UTF-8(?s:.*)iconv -f utf-16le -t utf-8 d.csv"),
        ("d.csv", CSV.encode("shift-jis", "ignore") + b"\x93\xfa,b\n", "line 3 is not UTF-8"),
        ("d.csv", b"text,label\nx\0y,a\n", r"line 2 holds a NUL byte(?s:.*)tr -d"),
        ("d.json", CSV, r"not JSON(?s:.*)let its name end in \.csv"),
        ("d.jsonl", "{'text': 'x', 'label': 'a'}\n", r"not JSON(?s:.*)json\.dumps"),
        ("d.csv.gz", gzip.compress(CSV.encode()) + b"more", "compression is broken"),
    ],
)
def test_what_a_file_is_not_is_said_with_the_next_step(
    tmp_path: Path, name: str, content: bytes | str, said: str
) -> None:
    """Pointers, web pages, sheets and other encodings under the name of a table are told apart."""
    with pytest.raises(DataError, match=said):
        _read(tmp_path, name, content)


def test_a_parquet_file_under_another_name_or_cut_short_is_named(tmp_path: Path) -> None:
    """The bytes at both ends tell what it is, and whether all of it is there."""
    raw = _parquet(tmp_path)
    with pytest.raises(DataError, match=r"a Parquet file(?s:.*)end in \.parquet"):
        _read(tmp_path, "d.csv", raw)
    with pytest.raises(DataError, match=r"its end is missing(?s:.*)write it again"):
        _read(tmp_path, "d.parquet", raw[:-20])
    for name in ("d.pq", "d.PARQ"):
        assert len(_read(tmp_path, name, raw)) == 9


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv.gz", CSV.encode()),
        ("d.csv.gz", gzip.compress(CSV[:11].encode()) + gzip.compress(CSV[11:].encode())),
        ("d.tsv.zst", gzip.compress(CSV.replace(",", "\t").encode())),
        ("d.csv", "\ufeff\ufeff" + CSV),
        ("d.csv", "text,label\n\ufeffschön,a\n"),
        ("d.csv", CSV + "\x1a"),
        ("d.csv", "# exported 2024-01-01\n#by me\n" + CSV),
        ("d.jsonl", '\ufeff[{"text": "schön", "label": "a"}]'),
        ("d.jsonl", '[\n {\n  "text": "schön",\n  "label": "a"\n }\n]\n'),
        ("d.jsonl", '\x1e{"text": "schön", "label": "a"}\n'),
        ("d.jsonl", '{"text": "schön", "label": "a"},\n'),
        ("d.json", '{\n "text": "schön", "label": "a"\n}\n'),
    ],
)
def test_what_is_plain_in_spite_of_its_name_is_read(tmp_path: Path, name: str, content: bytes | str) -> None:
    """Unpacked on the way, in several members, marked twice, with a line of comment, JSON of another form."""
    found = _read(tmp_path, name, content)
    assert (found.texts, found.labels) == (("schön",), ("a",))


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("between", ["", "\n", "\r", ",\n", "\n\x1e"])
def test_objects_one_after_another_are_rows(tmp_path: Path, ending: str, between: str) -> None:
    """Objects need no line of their own: what `cat` and loggers write is read in its order."""
    rows = ['{"text": "x",\n "label": "a"}', '{"text": "y", "label": "b"}']
    found = _read(tmp_path, f"d.{ending}", between.join(rows))
    assert (found.texts, found.labels) == (("x", "y"), ("a", "b"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 100_000 + "]" * 100_000, "row 2: not JSON that can be read: nested too deeply"),
        ('{"text": "y", "label": ' + "9" * 5000 + "}", "row 2: a number has more digits than are read"),
        ('{"text": "y", "label": "a", "label": "b"}', "row 2: one object names 'label' twice"),
        ('{"text": "y", "label": ["a",]}', "row 2: not JSON.*comma"),
        ("null", "row 2: every line must hold a JSON object"),
        ('{"text": "y", "label": "a"', "row 2: not JSON"),
    ],
)
def test_a_line_that_cannot_be_a_row_is_named(tmp_path: Path, line: str, said: str) -> None:
    """Nesting, endless numbers, a name twice and a comma too many are refused as rows, whatever follows."""
    row = '{"text": "x", "label": "a"}\n'
    with pytest.raises(DataError, match=said):
        _read(tmp_path, "d.jsonl", row + line + "\n" + row)


def test_a_header_within_the_rows_is_refused(tmp_path: Path) -> None:
    """Files that were joined repeat it; a tweet that begins with # is a row."""
    with pytest.raises(DataError, match=r"row 2: repeats the header(?s:.*)were joined"):
        _read(tmp_path, "d.csv", CSV + "\ufeff" + CSV)
    assert _read(tmp_path, "d.csv", CSV + "#good,b\n").texts == ("schön", "#good")
    with pytest.raises(DataError, match="columns: # great"):
        _read(tmp_path, "d.csv", "# great,a\nx,b\n")
