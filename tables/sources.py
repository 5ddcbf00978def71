"""Files and folders of labelled rows: which kind each is, and its rows as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from contract.errors import DataError
from tables.columnar import ENDINGS as COLUMNAR
from tables.columnar import columnar_records, feature_names, named
from tables.content import COMPRESSED, kind_of, text_of
from tables.delimited import delimited_records
from tables.objects import document_records, line_records

TEXT = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json")
KINDS = (*TEXT, *COLUMNAR)
SPLIT = re.compile(r"(train|training|validation|valid|val|dev|tune|certify|test)(?![a-z])", re.IGNORECASE)
SPLITS = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation"}
ELSEWHERE = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".zip": "unpack it first",
    ".pkl": "pandas.read_pickle(FILE).to_parquet('data.parquet'): pickles run code and are never read",
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
    """

    text: str = "text"
    label: str | None = "label"
    slice: str | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns that have to be there."""
        return tuple(name for name in (self.text, self.label, self.slice) if name is not None)

    @property
    def maybe(self) -> tuple[str, ...]:
        """The columns that are read where they are there."""
        return ("split", "slice") if self.slice is None else ("split",)


def records_of(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield the rows of a file or folder as they are.

    A folder is what `datasets.save_to_disk` writes; one folder of .txt files per class; or files of one kind
    with the same columns (shards), also one folder per value of a column (`label=pos/`). Where files are
    named after splits and have no `split` column, they get one.

    Raises:
        DataError: naming the file and the rule.
    """
    if path.is_dir():
        yield from _folder(path, columns)
    elif not path.exists():
        raise DataError("there is no such file", where=path)
    else:
        yield from _file(path, columns)


def _file(path: Path, columns: Columns, classes: dict[str, list[str]] | None = None) -> Iterator[Record]:
    kind = kind_of(path)
    wanted = [name for name in columns.wanted if "." not in name]
    if kind not in KINDS or (kind in COLUMNAR and path.suffix.lower() in COMPRESSED):
        raise DataError(
            f"files of kind {path.suffix or 'without suffix'!r} are not read",
            where=path,
            hint=ELSEWHERE.get(path.suffix.lower())
            or f"one of {', '.join(KINDS)}, or a folder with one folder of .txt files per class",
        )
    if kind in COLUMNAR:
        whole = len(wanted) < len(columns.wanted)
        rows = columnar_records(path, columns.wanted if whole else wanted, columns.maybe)
    elif kind == ".json":
        rows = document_records(text_of(path), path)
    elif kind in {".jsonl", ".ndjson"}:
        rows = line_records(text_of(path), path)
    else:
        rows = delimited_records(text_of(path), path, wanted, prefer="," if kind == ".csv" else "\t")
    for number, values in rows:
        for name in (classes or {}).keys() & values.keys():
            values[name] = named(values[name], (classes or {})[name])
        yield Record(f"{path}: row {number}", number, values)


def _folder(path: Path, columns: Columns) -> Iterator[Record]:
    if (path / "dataset_dict.json").is_file():
        for split in json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]:
            yield from _with(_saved(path / split, columns), {"split": split})
    elif (path / "state.json").is_file():
        yield from _saved(path, columns)
    elif texts := sorted(path.glob("*/*.txt")):
        yield from _classes(texts, columns)
    else:
        yield from _shards(path, columns)


def _saved(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield the rows of what `datasets.save_to_disk` wrote."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        info = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))
        files = [path / Path(file["filename"]).name for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DataError(f"not what save_to_disk writes: {problem}", where=path) from None
    for file in files:
        yield from _file(file, columns, feature_names(info.get("features")))


def _classes(files: Sequence[Path], columns: Columns) -> Iterator[Record]:
    for number, file in enumerate(files, start=1):
        raw = file.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            try:
                text = raw.decode("cp1252")
            except UnicodeDecodeError as problem:
                raise DataError(f"neither UTF-8 nor Windows-1252 text: {problem}", where=file) from None
        yield Record(str(file), number, {columns.text: text, columns.label or "label": file.parent.name})


def _shards(path: Path, columns: Columns) -> Iterator[Record]:
    inside = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    found = [file for file in inside if kind_of(file) in KINDS and not any(p[0] in "._" for p in file.parts)]
    if {kind_of(file) for file in found} > {".json"}:
        found = [file for file in found if kind_of(file) != ".json"]
    kinds = sorted({kind_of(file) for file in found})
    if len(kinds) != 1:
        said = (
            f"holds files of several kinds ({', '.join(kinds)})" if kinds else "holds no CLASS/NAME.txt files"
        )
        raise DataError(
            f"the folder {said}",
            where=path,
            hint="give one file, or a folder of files of one kind"
            if kinds
            else f"files read: {', '.join(KINDS)}",
        )
    number = 0
    for file in sorted(found, key=_natural):
        known: dict[str, Any] = {}
        split = SPLIT.match(file.name) or (SPLIT.fullmatch(file.parts[0]) if len(file.parts) > 1 else None)
        if split:
            known["split"] = SPLITS.get(split[1].lower(), split[1].lower())
        for part in file.parts[:-1]:
            name, equals, value = part.partition("=")
            if equals:
                known[name] = None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        inner = columns
        if columns.label in known:
            inner = Columns(columns.text, None, columns.slice)
        for record in _with(_file(path / file, inner), known):
            number += 1
            yield Record(record.place, number, record.values)


def _with(records: Iterator[Record], known: dict[str, Any]) -> Iterator[Record]:
    return (Record(r.place, r.number, {**known, **r.values}) for r in records)


def _natural(file: Path) -> list[tuple[int, str]]:
    """Return what sorts `part-2` before `part-10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", str(file))]
