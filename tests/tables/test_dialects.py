"""Delimited text is read in whatever dialect it was written."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract.errors import DataError
from tables.delimited import delimited_records
from tables.labelled import read_labelled

ROWS = [
    ("Foo, bar; baz\tqux|", "pos"),
    ('"Foo" is great', "neg"),
    ("two\nlines", "pos"),
    ("C:\\path\\", "neg"),
]


def _read(tmp_path: Path, content: str | bytes, name: str = "d.csv") -> list[tuple[str, str | None]]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_labelled(path)
    return list(zip(found.texts, found.labels, strict=True))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("style", ["minimal", "all", "backslash"])
def test_every_separator_quoting_and_line_end_gives_the_rows(
    tmp_path: Path, separator: str, style: str, end: str
) -> None:
    """What the csv module, Spark and MySQL write is read back."""
    out = io.StringIO(newline="")
    if style == "backslash":
        csv.writer(
            out,
            delimiter=separator,
            lineterminator=end,
            quoting=csv.QUOTE_ALL,
            doublequote=False,
            escapechar="\\",
        ).writerows([("text", "label"), *ROWS])
    else:
        # With \r as line end, the csv module does not see that \n needs quotes.
        quoting: Literal[0, 1] = csv.QUOTE_ALL
        if style == "minimal" and end != "\r":
            quoting = csv.QUOTE_MINIMAL
        csv.writer(out, delimiter=separator, lineterminator=end, quoting=quoting).writerows(
            [("text", "label"), *ROWS]
        )
    assert _read(tmp_path, out.getvalue()) == ROWS


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('text,label\n"Foo" is great,a\n', [('"Foo" is great', "a")]),
        ('text,label\n"Foo, Bar" is "great",a\nx,b\n', None),
        ('text,label\n"He said \\"hi\\", twice",a\n', [('He said "hi", twice', "a")]),
        (" text , label \nx,a\n", [("x", "a")]),
        ('"text", "label"\n"x, y", "a"\n', [("x, y", "a")]),
        ("sep=;\ntext;label\nx;a\n", [("x", "a")]),
        ("text;label\n1,5 and 2,5 of 3,5;a\n", [("1,5 and 2,5 of 3,5", "a")]),
        ("id,text,label,\n0,x,a,\n", [("x", "a")]),
        (",text,label\n0,x,a\n1,y,b\n", [("x", "a"), ("y", "b")]),
        ("text,label\nx,a\n\n\n", [("x", "a")]),
        ("\n\ntext,label\nx,a\n", [("x", "a")]),
        ("text,label\nx,a,,\n", [("x", "a")]),
        ("text,label\nx,\n", [("x", None)]),
        ('text\tlabel\n"Foo bar\tpos\nbaz"\tneg\n', [('"Foo bar', "pos"), ('baz"', "neg")]),
        ('text\tlabel\n"only one quote\tpos\n', [('"only one quote', "pos")]),
        ("label|text\na|x, y; z\n", [("x, y; z", "a")]),
        ('text,label\n5" pipe,a\n', [('5" pipe', "a")]),
        ('text,label\n"a ""b"" c",a\n', [('a "b" c', "a")]),
        ("text,label\na\\,b,c\n", [("a,b", "c")]),
        ("text,label\nx,nan\n", [("x", None)]),
        ("text,label\nx,['a']\ny,[b]\n", [("x", "a"), ("y", "[b]")]),
    ],
)
def test_everyday_oddities_are_read(
    tmp_path: Path, content: str, rows: list[tuple[str, str | None]] | None
) -> None:
    """Quoted words at the start, blanks in the header, Excel's first line, indices, lone quotes in TSV."""
    if rows is None:
        with pytest.raises(DataError, match="row 1: 3 cells where the header has 2"):
            _read(tmp_path, content)
    else:
        assert _read(tmp_path, content) == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    """UTF-8 with and without a mark, and UTF-16 and UTF-32 with one, are read."""
    assert _read(tmp_path, "text,label\nä, ö\r\n".replace(", ", ",").encode(encoding)) == [("ä", "ö")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "text,label\nok,a\ncafé,b\n".encode("latin-1"),
            r"line 3 is not UTF-8 text \(byte 0xe9\)(?s:.*)iconv",
        ),
        ("text,label\nok,a\n".encode("utf-16-le"), "line 1 holds a NUL byte(?s:.*)byte-order mark"),
        (b'text,label\nx,a\n"open,b\n', "row 2: not readable CSV: a quote opens here and never closes"),
        (b"Text,label\nx,a\n", "no column 'text'(?s:.*)`Text` is there, and case counts"),
        (b"text,label,text\nx,a,y\n", "two columns are named 'text'"),
    ],
)
def test_what_is_not_read_is_named_with_its_row(tmp_path: Path, content: bytes, said: str) -> None:
    """Another encoding, NUL bytes, an open quote and a header in other case are refused with a next step."""
    with pytest.raises(DataError, match=said):
        _read(tmp_path, content)


def test_ragged_rows_are_all_listed(tmp_path: Path) -> None:
    """The first twenty of the rows with too many or too few cells are named at once."""
    content = "text,label\n" + "x,a\na,b,c\nshort\n" * 15
    with pytest.raises(
        DataError, match=r"30 rows break a rule(?s:.*)row 2: 3 cells(?s:.*)row 3: 1 cells(?s:.*)10 more"
    ):
        _read(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("d.csv.gz", gzip.compress),
        ("d.csv", gzip.compress),
        ("d.csv.bz2", bz2.compress),
        ("d.csv.xz", lzma.compress),
        ("d.csv.zst", lambda raw: pa.compress(raw, "zstd", asbytes=True)),
    ],
)
def test_compressed_text_is_read(tmp_path: Path, name: str, pack: object) -> None:
    """Text is unpacked by its ending; gzip also under the plain name."""
    assert _read(tmp_path, pack(b"text,label\nx,a\n"), name) == [("x", "a")]  # type: ignore[operator]
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"text,label\nx,a\n")[:-9])
    with pytest.raises(DataError, match="compression is broken"):
        read_labelled(tmp_path / "broken.csv.gz")


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@example(rows=[("", "\n\t")], separator="\t", backslash=False, end="\n")
@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t|"),
    backslash=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_was_quoted_in_any_dialect_is_read_back(
    rows: list[tuple[str, str]], separator: str, backslash: bool, end: str
) -> None:
    """Quoted rows of any text come back cell by cell, whatever the separator and the way of quoting."""
    rows = [(a, b) for a, b in rows if "nan" not in {a.strip().lower(), b.strip().lower()}] or [("x", "y")]
    # Where every cell can be read either way, a backslash before a quote means what RFC 4180 says.
    if backslash:
        rows = [('"', ""), *rows]
    out = io.StringIO(newline="")
    csv.writer(
        out,
        delimiter=separator,
        lineterminator=end,
        quoting=csv.QUOTE_ALL,
        doublequote=not backslash,
        escapechar="\\" if backslash else None,
    ).writerows([("text", "label"), *rows])
    found = delimited_records(out.getvalue(), "d.csv", ["text", "label"])
    assert [(row["text"], row["label"]) for _, row in found] == rows
