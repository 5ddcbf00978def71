"""Delimited text in its everyday dialects: the separator and the way of quoting are found, not asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from contract.errors import DataError
from tables.problems import refuse

MOST_COMMENTS = 200
SEPARATORS = (",", ";", "\t", "|")
Quoting = Literal["doubled", "backslash", "none"]

_SEP_LINE = re.compile(r'"?sep=(.)"?\r?\n')
_END = r"(?:\r\n|\n|\r|\Z)"


@dataclass(frozen=True)
class Dialect:
    """How the cells of a file are parted (`separator`) and how a quote inside a quoted cell is written."""

    separator: str
    quoting: Quoting = "doubled"


@dataclass
class Parsed:
    """The records of a file, as one dialect reads them.

    Attributes:
        records: cells, one list per record; an empty line is an empty list.
        loose: how many cells begin with a quoted word and go on; they are kept as written.
        open_at: the record in which a quote opens that never closes, if there is one.
    """

    records: list[list[str]] = field(default_factory=list)
    loose: int = 0
    open_at: int | None = None

    def ragged(self) -> list[tuple[int, int]]:
        """Return (record, cells) of every record with another number of cells than the first."""
        width = len(self.records[0]) if self.records else 0
        return [
            (number, len(cells))
            for number, cells in enumerate(self.records)
            if cells and len(cells) != width and (len(cells) < width or any(map(str.strip, cells[width:])))
        ]

    @property
    def faults(self) -> int:
        """How badly the dialect fits."""
        return self.loose + len(self.ragged()) + (self.open_at is not None)


def delimited_records(
    content: str, where: object, wanted: Sequence[str], *, prefer: str = ",", unique: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, cells by column name) for every row of delimited text with a header.

    Cells that say nan in any case are None. Blanks around the names of the header go.

    Args:
        content: the text of the file.
        where: the file, for messages.
        wanted: the columns that are looked for: the separator is the one whose header has them.
        prefer: the separator where nothing else tells.
        unique: no two columns at all may have one name.

    Raises:
        DataError: a column twice, a quote that never closes, or rows of another length (all listed).
    """
    named = _SEP_LINE.match(content)
    content = content[named.end() :] if named else content
    separators = (named[1],) if named else (prefer, *(s for s in SEPARATORS if s != prefer))
    content = _after_comments(content, separators, wanted)
    parsed = _best(content, separators, wanted)
    if parsed.open_at is not None:
        raise DataError(
            "not readable CSV: a quote opens here and never closes", where=f"{where}: row {parsed.open_at}"
        )
    start = next((i for i, cells in enumerate(parsed.records) if any(map(str.strip, cells))), None)
    if start is None:
        return
    header = [name.strip().strip("\ufeff") for name in parsed.records[start]]
    twice = [
        name for name, count in Counter(header).items() if count > 1 and (name in wanted or (unique and name))
    ]
    if twice:
        raise DataError(f"two columns are named {twice[0]!r}", where=where)
    rows = Parsed(parsed.records[start:])
    refuse(
        [
            (f"{where}: row {number}", f"{cells} cells where the header has {len(header)}")
            for number, cells in rows.ragged()
        ],
        where=where,
        hint="put quotes around cells that hold the separator or line ends",
    )
    is_header = len(header) > 1 and any(name in header for name in wanted)
    refuse(
        [
            (f"{where}: row {number}", "repeats the header")
            for number, cells in enumerate(rows.records[1:], start=1)
            if is_header and cells == rows.records[0]
        ],
        where=where,
        hint="several files were joined: delete these lines, or put the files into one folder",
    )
    for number, cells in enumerate(rows.records[1:], start=1):
        if cells:
            values = [None if cell.strip().lower() == "nan" else cell for cell in cells]
            yield number, dict(zip(header, values, strict=False))


def parse(content: str, dialect: Dialect) -> Parsed:
    """Return the records of a text in one dialect."""
    sep = re.escape(dialect.separator)
    blank = "[ \t]*" if dialect.separator != "\t" else " *"
    if dialect.quoting == "backslash":
        quoted = re.compile(rf'{blank}"((?:[^"\\]|\\.|"")*+)"{blank}(?={sep}|{_END})', re.DOTALL)
        bare = re.compile(rf"(?:[^{sep}\r\n\\]|\\.)*", re.DOTALL)
        escaped = re.compile(rf'\\(["\\{sep}])')
    else:
        quoted = re.compile(rf'{blank}"([^"]*+(?:""[^"]*+)*+)"{blank}(?={sep}|{_END})')
        bare = re.compile(rf"[^{sep}\r\n]*")
    opening = re.compile(rf'{blank}"')
    found, cells, at, size = Parsed(), [], 0, len(content)
    while at < size:
        opened = None if dialect.quoting == "none" else opening.match(content, at)
        whole = quoted.match(content, at) if opened else None
        if whole:
            value = whole[1].replace('""', '"')
        else:
            if opened and found.open_at is None and content.find('"', opened.end()) < 0:
                found.open_at = len(found.records)
            found.loose += opened is not None
            whole = bare.match(content, at)
            assert whole is not None
            value = whole[0]
        cells.append(escaped.sub(r"\1", value) if dialect.quoting == "backslash" else value)
        at = whole.end()
        if at < size and content[at] == dialect.separator:
            at += 1
            if at == size:
                cells.append("")
            continue
        at += 2 if content.startswith("\r\n", at) else 1
        found.records.append([] if cells == [""] else cells)
        cells = []
    if cells:
        found.records.append(cells)
    return found


def _best(content: str, separators: Sequence[str], wanted: Sequence[str]) -> Parsed:
    """Return the records in the dialect whose header has the wanted columns and that fits best."""
    line = _first_line(content)
    hits = {separator: _hits(line, separator, wanted) for separator in separators}
    ranked = [separator for separator in separators if hits[separator] == max(hits.values())]
    if not max(hits.values()):
        ranked = [max(separators, key=line.count)]
    if not any(separator in line for separator in separators):
        ranked.append("\0")
    best = Parsed(loose=len(content) + 1)
    for separator in ranked:
        parsed = _fitting(content, separator)
        if parsed.faults < best.faults:
            best = parsed
        if not best.faults:
            break
    return best


def _fitting(content: str, separator: str) -> Parsed:
    """Return the records with one separator, quoted in the way that fits best."""
    parsed = parse(content, Dialect(separator))
    if parsed.faults and "\\" in content:
        parsed = min(
            parsed, parse(content, Dialect(separator, "backslash")), key=lambda parsed: parsed.faults
        )
    if separator == "\t" and '"' in content:
        # Many tab-separated files know no quoting: a lone quote would swallow rows up to the next one.
        plain = parse(content, Dialect(separator, "none"))
        if plain.records[:1] != parsed.records[:1]:
            return parsed  # its header is quoted
        if not plain.ragged() and len(plain.records) != len(parsed.records):
            return plain
        if not plain.ragged() and (parsed.open_at is not None or parsed.ragged()):
            return plain
    return parsed


def _after_comments(content: str, separators: Sequence[str], wanted: Sequence[str]) -> str:
    """Return the text after up to 200 lines that begin with # and are followed by a header that is wanted."""
    rest = content
    for _ in range(MOST_COMMENTS):
        line = _first_line(rest)
        if not line.startswith("#") or _names_any(line, separators, wanted):
            break
        rest = rest[rest.index(line) + len(line) :]
    return rest if _names_any(_first_line(rest), separators, wanted) else content


def _names_any(line: str, separators: Sequence[str], wanted: Sequence[str]) -> bool:
    return any(_hits(line, separator, wanted) for separator in separators)


def _first_line(content: str) -> str:
    return next((line for line in re.split(r"\r\n|\n|\r", content[: 1 << 16]) if line.strip()), "")


def _hits(line: str, separator: str, wanted: Sequence[str]) -> int:
    """Return how many of the wanted columns a header line names, but for case, parted by a separator."""
    cells = [cell.strip().strip('"\ufeff').strip().casefold() for cell in line.split(separator)]
    return sum(name.casefold() in cells for name in wanted)
