"""Tables as plain structures, and how they read in a terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table as RichTable

from report.figures import UNKNOWN

FIRST_COLUMN = 12

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
    """Return the table for a terminal: intervals below their values, so that it fits eighty columns."""
    drawn = RichTable(
        title=table.title,
        title_justify="left",
        caption="\n".join(table.notes) or None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0),
    )
    for index, name in enumerate(table.columns):
        words = name in table.words
        longest = max((len(row.cells[index]) for row in table.rows), default=0)
        drawn.add_column(
            name.replace(" (", "\n(").replace(" ms", "\nms").replace("-", "-\n"),
            justify="left" if index == 0 or words else "right",
            vertical="bottom" if words else "top",
            no_wrap=index > 0 and not words,
            overflow="fold",
            min_width=min(longest, FIRST_COLUMN) if index == 0 else None,
        )
    styles = {"strong": "bold", "muted": "dim", "": ""}
    for row in table.rows:
        drawn.add_row(*(escape(cell).replace(" [", "\n[") for cell in row.cells), style=styles[row.emphasis])
    return drawn


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
