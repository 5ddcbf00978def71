"""Rows that say the same: which one stays, and how many go for which reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from compress.datasets.sources import Row
from compress.recipes.data_part import Conflicts
from contract.errors import DataError
from tables.problems import refuse


@dataclass(frozen=True)
class Removed:
    """How many rows were left out, by reason.

    Those that repeat a whole text, those equal to another once cut or but for upper and lower case, and those
    that contradict another's label.
    """

    in_full: int = 0
    after_cut: int = 0
    in_conflict: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            self.in_full + other.in_full,
            self.after_cut + other.after_cut,
            self.in_conflict + other.in_conflict,
        )


def text_key(row: Row) -> str:
    """Return the text that is kept of a row, without differences in white space and, unless `exact`, case."""
    text = " ".join(row.text.split())
    return text if row.exact else text.casefold()


def repeat_of(first: Row, row: Row) -> Removed:
    """Return one removed row, counted by how it repeats the first: in full, or as far as both were cut."""
    return Removed(in_full=1) if _whole(first) == _whole(row) else Removed(after_cut=1)


def without_repeats(
    rows: list[Row], source: object, *, conflicts: Conflicts = "refuse"
) -> tuple[list[Row], Removed]:
    """Return the first row of every text, and how many rows were left out.

    Args:
        rows: of one source.
        source: for messages.
        conflicts: one text under several labels is refused, left out (`remove`), or kept with the label of
            most of its rows (`majority`), and left out where two labels tie.

    Raises:
        DataError: texts under several labels, where these are refused, all listed; or no rows.
    """
    if not rows:
        raise DataError("there are no rows", where=source)
    rows, gone = _agreeing(rows, source, conflicts)
    wholes: dict[str, Row] = {}
    kept: dict[str, Row] = {}
    removed = Removed(in_conflict=gone)
    for row in rows:
        whole = wholes.setdefault(_whole(row), row)
        first = whole if whole is not row else kept.setdefault(text_key(row), row)
        if first is not row:
            removed += Removed(in_full=1) if whole is not row else Removed(after_cut=1)
    return list(kept.values()), removed


def _agreeing(rows: list[Row], source: object, conflicts: Conflicts) -> tuple[list[Row], int]:
    """Return the rows whose text has one label, and how many were left out."""
    same: dict[str, list[Row]] = {}
    for row in rows:
        same.setdefault(text_key(row), []).append(row)
    disputed = {key: group for key, group in same.items() if len({row.label for row in group}) > 1}
    if conflicts == "refuse":
        problems = [
            (row.place, _contradiction(group[0], row))
            for group in disputed.values()
            for row in _others(group)
        ]
        cut = any("`data.max_words`" in rule for _, rule in problems)
        refuse(
            problems,
            where=source,
            hint=("raise data.max_words, or " if cut else "")
            + "decide on one label, or set data.conflicts: remove or majority",
        )
    chosen = {key: _most(group) if conflicts == "majority" else None for key, group in disputed.items()}
    kept = [row for row in rows if (key := text_key(row)) not in chosen or row.label == chosen[key]]
    return kept, len(rows) - len(kept)


def _others(group: list[Row]) -> list[Row]:
    return [row for row in group if row.label != group[0].label]


def _contradiction(first: Row, row: Row) -> str:
    cut = "" if _whole(first) == _whole(row) else " up to `data.max_words` or case"
    return f"the same text{cut} has the label {row.label!r} here and {first.label!r} in {first.place}"


def _most(group: list[Row]) -> str | None:
    """Return the label of most rows, None where two tie."""
    (label, count), *others = Counter(row.label for row in group).most_common(2)
    return None if others and others[0][1] == count else label


def _whole(row: Row) -> str:
    return " ".join([*row.text.split(), *row.rest.split()])
