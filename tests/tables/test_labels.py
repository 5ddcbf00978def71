"""One label has one name, however a file writes it."""

from __future__ import annotations

import datetime
import unicodedata
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tables.labels import label_name, label_names, look_alikes


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("pos ", "pos"),
        ("\u00a0pos\t\n", "pos"),
        ("\ufeffpos\u200b", "pos"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u200dpos\u200c ", "pos"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("card arrival", "card arrival"),
        ("007", "007"),
        ("2024-01-01", "2024-01-01"),
        ("1.0", "1"),
        ("-0.0", "0"),
        ("1.10", "1.10"),
        ("1.5", "1.5"),
        ("True", "true"),
        ("FALSE", "false"),
        ("Truely", "Truely"),
        (b"pos", "pos"),
        (True, "true"),
        (np.bool_(False), "false"),
        (3, "3"),
        (np.int8(-1), "-1"),
        (3.0, "3"),
        (np.float32(2), "2"),
        (Decimal("4.00"), "4"),
        (datetime.date(2024, 1, 1), "2024-01-01"),
        (datetime.datetime(2024, 1, 1), "2024-01-01"),
        (datetime.datetime(2024, 1, 1, 9), "2024-01-01 09:00:00"),
        (["pos"], "pos"),
        (None, None),
        (float("nan"), None),
        (np.datetime64("NaT"), None),
        (Decimal("nan"), None),
        ("", None),
        (" \u200b", None),
    ],
)
def test_a_label_has_one_name(written: Any, name: str | None) -> None:
    """Blanks, Unicode forms, truth values, whole floats and dates all come to one name."""
    assert label_name(written) == name


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        (0.5, "an integer, not 0.5"),
        ("two\nlines", "one line"),
        ("half \ud83d", "half of a surrogate pair"),
        ("nul\0byte", "control character"),
        (["a", "b"], "one label, not a list of 2"),
        ([], "list of 0"),
        ({"choices": ["a"]}, "name or an integer"),
        (b"\xff", "UTF-8"),
        (float("inf"), "an integer, not inf"),
    ],
)
def test_what_is_no_name_is_refused(written: Any, rule: str) -> None:
    """Fractions, several labels, several lines and broken text are refused by rule."""
    with pytest.raises(ValueError, match=rule):
        label_name(written)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_a_name_is_its_own_name(written: str) -> None:
    """Reading a name again changes nothing, nor does another Unicode form or a blank around it."""
    try:
        name = label_name(written)
    except ValueError:
        return
    assert label_name(name) == name
    assert label_name(f" {unicodedata.normalize('NFD', written)}\u200b") == name


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (pa.array(["a ", None, "b"], pa.string_view()), ["a", None, "b"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["a ", "a", None]).dictionary_encode(), ["a", "a", None]),
        (pa.array([True, None]), ["true", None]),
        (pa.array([1.0, None, float("nan")]), ["1", None, None]),
        (pa.array([1, 2], pa.uint8()), ["1", "2"]),
        (pa.array([b"a", None]), ["a", None]),
        (pa.array([b"a"], pa.binary_view()), ["a"]),
        (pa.array([["a"], None]), ["a", None]),
        (pa.array([datetime.date(2024, 1, 1)]), ["2024-01-01"]),
        (pa.nulls(2), [None, None]),
        (pa.array([], pa.string()), []),
    ],
)
def test_a_column_of_any_type_is_read(column: Any, names: list[str | None]) -> None:
    """Every Arrow type that holds labels gives the same names, in one chunk or in several."""
    assert label_names(column) == names
    assert label_names(pa.chunked_array([column, column])) == names * 2


def test_labels_that_only_look_different_are_grouped() -> None:
    """Case, blanks, joiners and compatible characters make look-alikes; other names stay apart."""
    names = [
        "pos",
        "Pos",
        "neg",
        "card  arrival",
        "card arrival",
        "ﬁne",
        "fine",
        "a\u200cb",
        "ab",
        "STRASSE",
        "straße",
    ]
    assert look_alikes(names) == [
        ("Pos", "pos"),
        ("STRASSE", "straße"),
        ("ab", "a\u200cb"),
        ("card  arrival", "card arrival"),
        ("fine", "ﬁne"),
    ]
