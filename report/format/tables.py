"""Tables as plain structures, and how they read in a terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table as RichTable

from report.format.figures import UNKNOWN

FIRST_COLUMN = 12
LONGEST_WORDS = 16

Emphasis = Literal["", "strong", "muted"]


@dataclass(frozen=True)
class Row:
    """One line of a table: `strong` for the one to look at, `muted` for one that something beats."""

    cells: tuple[str, ...]
    emphasis: Emphasis = ""


@dataclass(frozen=True)
class Table:
    """A table for people. The first column names the row; `notes` say what the columns mean.

    `words` names the columns that hold text rather than figures: aligned left, and free to wrap.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()

    def without_empty_columns(self) -> Table:
        """Return the table without the columns in which nothing is known."""
        keep = [
            index
            for index in range(len(self.columns))
            if index == 0 or any(row.cells[index] not in {UNKNOWN, ""} for row in self.rows)
        ]
        return self.pick(tuple(self.columns[index] for index in keep))

    def pick(self, names: Sequence[str]) -> Table:
        """Return the table with only those of the named columns that it has, in its own order."""
        keep = [index for index, name in enumerate(self.columns) if name in names]
        return Table(
            self.key,
            self.title,
            tuple(self.columns[i] for i in keep),
            tuple(Row(tuple(row.cells[i] for i in keep), row.emphasis) for row in self.rows),
            self.notes,
            self.words,
        )


def slug(text: str) -> str:
    """Return a text as part of an identifier or file name: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


def to_rich(table: Table) -> RichTable:
    """Return the table for eighty columns: intervals below their values, long words below the table."""
    for name in [n for n in table.columns if n in table.words]:
        table = _words_as_notes(table, name)
    drawn = RichTable(
        title=table.title,
        title_justify="left",
        caption="\n".join(escape(note) for note in table.notes) or None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0),
    )
    for index, name in enumerate(table.columns):
        words = index == 0 or name in table.words
        longest = max((len(row.cells[index]) for row in table.rows), default=0)
        drawn.add_column(
            name.replace(" (", "\n(").replace(" ms", "\nms").replace("-", "-\n").replace(": ", ":\n"),
            justify="left" if words else "right",
            no_wrap=not words,
            overflow="fold",
            min_width=min(longest, FIRST_COLUMN) if index == 0 else None,
        )
    styles = {"strong": "bold", "muted": "dim", "": ""}
    for row in table.rows:
        cells = (escape(cell).replace(" [", "\n[") for cell in row.cells)
        drawn.add_row(*cells, style=styles[row.emphasis])
    return drawn


def fit(table: Table, width: int, spare: Sequence[str]) -> Table:
    """Return the table without the first so many `spare` columns that it then fits a terminal's width."""
    for name in spare:
        if _width(table) <= width:
            break
        table = table.pick([column for column in table.columns if column != name])
    return table


def _width(table: Table) -> int:
    """Return how wide `to_rich` draws the table: intervals below their values, no long words."""
    widths = []
    for index, name in enumerate(table.columns):
        cells = [row.cells[index] for row in table.rows]
        if name in table.words and any(len(cell) > LONGEST_WORDS for cell in cells):
            continue
        pieces = [*re.split(r"[ -]", name), *(piece for cell in cells for piece in cell.split(" ["))]
        widths.append(max(map(len, pieces)) + 1)
    return sum(widths) + len(widths)


def _words_as_notes(table: Table, name: str) -> Table:
    """Move a column of long texts below the table, rows of the same text together."""
    index = table.columns.index(name)
    if all(len(row.cells[index]) <= LONGEST_WORDS for row in table.rows):
        return table
    rows_of: dict[str, list[str]] = {}
    for row in table.rows:
        if row.cells[index] not in {"", UNKNOWN}:
            rows_of.setdefault(row.cells[index], []).append(row.cells[0])
    notes = [f"{name}, {'; '.join(dict.fromkeys(rows))}: {text}." for text, rows in rows_of.items()]
    rest = table.pick([column for column in table.columns if column != name])
    return replace(rest, notes=(*table.notes, *notes))


def to_markdown(table: Table) -> str:
    """Return the table as GitHub Markdown, notes below; strong rows are bold."""
    lines = [
        "| " + " | ".join(_markdown_cell(name) for name in table.columns) + " |",
        "|"
        + "|".join(" --- " if i == 0 or n in table.words else " ---: " for i, n in enumerate(table.columns))
        + "|",
    ]
    for row in table.rows:
        cells = [_markdown_cell(cell) for cell in row.cells]
        if row.emphasis == "strong":
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines)


def _markdown_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
