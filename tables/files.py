"""Files of labelled rows: which kind each is, and its rows as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import DataError
from tables.columnar import ENDINGS as COLUMNAR
from tables.columnar import columnar_records
from tables.content import COMPRESSED, kind_of, text_of
from tables.delimited import delimited_records
from tables.hub import name_classes
from tables.objects import document_records, line_records

DELIMITED = (".csv", ".tsv", ".tab")
OBJECTS = (".jsonl", ".ndjson", ".json")
KINDS = (*DELIMITED, *OBJECTS, *COLUMNAR)
_UNPACK = "unpack it first"
_SHEET = "save the sheet as CSV"
_EXPORT = "export the table as CSV"
ELSEWHERE = {
    ".xlsx": _SHEET,
    ".xls": _SHEET,
    ".xlsb": _SHEET,
    ".ods": _SHEET,
    ".zip": _UNPACK,
    ".tar": _UNPACK,
    ".tgz": _UNPACK,
    ".7z": _UNPACK,
    ".lz4": _UNPACK,
    ".db": _EXPORT,
    ".sqlite": _EXPORT,
    ".sqlite3": _EXPORT,
    ".orc": "pandas.read_orc(FILE).to_parquet('data.parquet')",
    ".pkl": "pandas.read_pickle(FILE).to_parquet('data.parquet'): pickles run code and are never read",
    ".pickle": "pandas.read_pickle(FILE).to_parquet('data.parquet'): pickles run code and are never read",
    ".txt": "if it is a table with a header, let its name end in .tsv or .csv",
}


@dataclass(frozen=True)
class Record:
    """One row as its file has it: where it is (for messages), its number from 1 there, and its values."""

    place: str
    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read.

    Attributes:
        text, label: a dot leads into objects and lists: `annotations.0.result.0.value`. Without a label
            column the texts alone are read.
        slice: by default `slice`, where the file has it.
        more: further columns, whose values are left to the caller.
    """

    text: str = "text"
    label: str | None = "label"
    slice: str | None = None
    more: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns that have to be there."""
        own = (self.text, self.label, self.slice)
        return (*(name for name in own if name is not None), *self.more)

    @property
    def maybe(self) -> tuple[str, ...]:
        """The columns that are read where they are there."""
        return ("split", "slice") if self.slice is None else ("split",)


def packed(path: Path) -> DataError:
    """Return what to say of a Parquet or Arrow file that was packed once more."""
    unpack = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd"}[path.suffix.lower()]
    return DataError(
        f"{kind_of(path)} files within {path.suffix} are not read",
        where=path,
        hint=f"{unpack} {path.name}: it is compressed inside",
    )


def file_records(
    path: Path, columns: Columns, classes: dict[str, list[str]] | None = None
) -> Iterator[Record]:
    """Yield the rows of one file as they are.

    Args:
        path: the file, whose ending tells its kind.
        columns: those that are looked for.
        classes: names of class numbers by column, where something beside the file tells them.

    Raises:
        DataError: naming the file and the rule.
    """
    kind = kind_of(path)
    wanted = [name for name in columns.wanted if "." not in name]
    if kind in COLUMNAR and path.suffix.lower() in COMPRESSED:
        raise packed(path)
    if kind not in KINDS:
        raise DataError(
            f"files of kind {path.suffix or 'without suffix'!r} are not read",
            where=path,
            hint=ELSEWHERE.get(kind)
            or f"one of {', '.join(KINDS)}, or a folder with one folder of .txt files per class",
        )
    if kind in COLUMNAR:
        whole = len(wanted) < len(columns.wanted)
        rows = columnar_records(path, columns.wanted if whole else wanted, columns.maybe)
    elif kind == ".json":
        rows = document_records(text_of(path), path)
    elif kind in OBJECTS:
        rows = line_records(text_of(path), path)
    else:
        rows = delimited_records(text_of(path), path, wanted, prefer="," if kind == ".csv" else "\t")
    for number, values in rows:
        place = f"{path}: row {number}"
        name_classes(values, classes or {}, place)
        yield Record(place, number, values)
