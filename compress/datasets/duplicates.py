"""Rows that say the same: which one stays, and how many go for which reason."""

from __future__ import annotations

from dataclasses import dataclass

from compress.datasets.sources import Row
from contract.errors import DataError


@dataclass(frozen=True)
class Removed:
    """How many rows were left out: those that repeat a whole text, and those equal to another once cut or
    but for upper and lower case.
    """

    in_full: int = 0
    after_cut: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.in_full + other.in_full, self.after_cut + other.after_cut)


def text_key(row: Row) -> str:
    """Return the text that is kept of a row, without differences in white space and, unless `exact`, case."""
    text = " ".join(row.text.split())
    return text if row.exact else text.casefold()


def repeat_of(first: Row, row: Row) -> Removed:
    """Return one removed row, counted by how it repeats the first: in full, or as far as both were cut."""
    return Removed(in_full=1) if _whole(first) == _whole(row) else Removed(after_cut=1)


def without_repeats(rows: list[Row], source: object) -> tuple[list[Row], Removed]:
    """Return the first row of every text, and how many rows were left out.

    Raises:
        DataError: two rows of one text with two labels, or no rows.
    """
    if not rows:
        raise DataError("there are no rows", where=source)
    wholes: dict[str, Row] = {}
    kept: dict[str, Row] = {}
    removed = Removed()
    for row in rows:
        whole = wholes.setdefault(_whole(row), row)
        first = whole if whole is not row else kept.setdefault(text_key(row), row)
        if first is row:
            continue
        if first.label != row.label:
            cut = " up to `data.max_words` or case" if whole is row else ""
            raise DataError(
                f"the same text{cut} has the label {row.label!r} here and {first.label!r} in {first.place}",
                where=row.place,
                hint="raise data.max_words, or drop one of them" if cut else "decide on one of them",
            )
        removed += Removed(in_full=1) if whole is not row else Removed(after_cut=1)
    return list(kept.values()), removed


def _whole(row: Row) -> str:
    return " ".join([*row.text.split(), *row.rest.split()])
