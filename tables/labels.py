"""The one spelling of a label: what files write in many ways is one name for every command."""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa

# Soft hyphen, zero-width space, word joiner, byte-order mark, and the marks of writing direction. The two
# zero-width joiners are spelling in Persian, in Indian scripts and in emoji, and are dropped at ends only.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_JOINERS = "\u200c\u200d"
_WHOLE = re.compile(r"([+-]?\d+)\.0")
_TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_SHOWN = 60


def label_name(value: object) -> str | None:
    """Return the name that stands for a label everywhere, None where the value says that there is none.

    Text is trimmed, composed (NFC) and freed of characters that nobody sees. A truth value is `true` or
    `false`, also where it was written True or TRUE; a whole number has no decimals (1.0 is `1`); a date is
    written as in ISO 8601; bytes are UTF-8. None, NaN, NaT and empty text are no label.

    Raises:
        ValueError: with the rule, for what is no name: fractions, several labels, several lines.
    """
    if isinstance(value, list | tuple | np.ndarray):
        if len(value) != 1:
            raise ValueError(f"must be one label, not a list of {len(value)}")
        value = value[0]
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError("must be UTF-8 text") from None
    if isinstance(value, str):
        return _from_text(value)
    if value is None or _is_nan(value):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, float | np.floating | Decimal):
        return _from_number(value)
    if isinstance(value, datetime.datetime):
        at_midnight = value.time() == datetime.time.min and value.tzinfo is None
        return value.date().isoformat() if at_midnight else value.isoformat(sep=" ")
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise ValueError(f"must be a name or an integer, not {shown(value)}")


def label_names(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """Return [N] the name of every label of an Arrow column, whatever its type. Raises as `label_name`."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type):
        return [label_name(value) for value in column.to_pylist()]
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary() if pa.types.is_binary_view(column.type) else pa.large_string())
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = [label_name(value) for value in column.dictionary.to_pylist()]
    return [None if index is None else names[index] for index in column.indices.to_pylist()]


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of different names that a reader would take for one, each sorted.

    They differ in upper and lower case, in blanks, in zero-width joiners, or in compatible characters (NFKC).
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(_seen(name), set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def shown(value: object) -> str:
    """Return a value as messages quote it: short, and with escapes in place of what nobody sees."""
    words = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "..."


def _is_nan(value: object) -> bool:
    # NaN, NaT and a decimal NaN are the values that are not equal to themselves.
    return bool(value != value)  # noqa: PLR0124


def _from_text(value: str) -> str | None:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"holds half of a surrogate pair: {shown(value)}")
    name = unicodedata.normalize("NFC", _INVISIBLE.sub("", value))
    trimmed = name.strip()
    while trimmed != (trimmed := trimmed.strip(_JOINERS).strip()):
        pass
    if len(trimmed.splitlines()) > 1:
        raise ValueError(f"must be of one line, not {shown(value)}")
    if any(unicodedata.category(character) == "Cc" and character != "\t" for character in trimmed):
        raise ValueError(f"holds a control character: {shown(value)}")
    whole = _WHOLE.fullmatch(trimmed)
    if whole:
        return str(int(whole[1])) if whole[1].isascii() else whole[1]
    return _TRUTH.get(trimmed, trimmed) or None


def _from_number(value: float | np.floating[Any] | Decimal) -> str:
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"must be a name or an integer, not {shown(value)}")
    return str(int(value))


def _seen(name: str) -> str:
    bare = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", " ".join(bare.casefold().split()))
