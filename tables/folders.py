"""Folders of labelled rows: shards, one folder per class, and what `datasets.save_to_disk` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from contract.errors import DataError
from tables.content import kind_of
from tables.files import KINDS, OBJECTS, Columns, Record, file_records
from tables.hub import feature_names
from tables.problems import refuse

SPLIT = re.compile(r"(train|training|validation|valid|val|dev|tune|certify|test)(?![a-z])", re.IGNORECASE)
SPLITS = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation"}


def folder_records(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield the rows of a folder as they are.

    A folder is what `datasets.save_to_disk` writes; one folder of text files per class, perhaps within one
    per split; or files of one kind with the same columns (shards), also one folder per value of a column
    (`label=pos/`). Where files or folders are named after splits and rows say none, they get one. Names that
    begin with a dot, and what macOS adds to archives, are left out.

    Raises:
        DataError: naming the file and the rule.
    """
    if (path / "dataset_dict.json").is_file():
        yield from _saved_splits(path, columns)
        return
    if (path / "state.json").is_file():
        yield from _saved(path, columns)
        return
    files = files_below(path)
    tables = _tables(files)
    named = [file for file in files if file.suffix.lower() == ".txt"]
    texts = [file for file in named if class_of(file)]
    if texts and tables and _tables_count(path, texts, tables, columns):
        texts = []
    if not texts and not tables:
        named = [file for file in files if _bare(file)]
        texts = [file for file in named if class_of(file)]
    if texts:
        yield from _classes(path, by_class(path, named), columns)
    else:
        yield from _shards(path, tables, columns)


def by_class(path: Path, files: Sequence[Path]) -> list[Path]:
    """Return those of some files that lie in CLASS/, or where there are such, in SPLIT/CLASS/.

    Files that lie higher are left out, as are lists of them beside the classes of a split.

    Raises:
        DataError: files that lie deeper, or beside the splits: their classes would be lost in silence.
    """
    placed = [file for file in files if class_of(file)]
    inner = [file for file in placed if len(file.parts) == 3]
    stray = [file for file in files if len(file.parts) > 2 and not class_of(file)] if placed else []
    stray += [f for f in placed if inner and len(f.parts) == 2 and not split_of(f.parts[0])]
    refuse(
        [(str(path / file), "lies neither in CLASS/ nor in SPLIT/CLASS/") for file in stray],
        where=path,
        hint="one folder per class, all of them in one folder per split (train, test) or none",
    )
    return inner or placed


def files_below(path: Path) -> list[Path]:
    """Return the files below a folder, relative to it. Raises DataError for a link that leads nowhere."""
    found = []
    for file in path.rglob("*"):
        inside = file.relative_to(path)
        if any(part.startswith(".") or part == "__MACOSX" for part in inside.parts):
            continue
        if file.is_file():
            found.append(inside)
        elif file.is_symlink() and not file.exists():
            raise DataError(
                "this link leads to no file", where=file, hint="fetch the file again, or delete the link"
            )
    return sorted(found, key=_natural)


def _tables(files: Sequence[Path]) -> list[Path]:
    """Return the shards among files: what begins with _ is Spark's own, and .json beside others metadata."""
    found = [f for f in files if kind_of(f) in KINDS and not any(p.startswith("_") for p in f.parts)]
    others = [file for file in found if kind_of(file) != ".json"]
    return others or found


def _tables_count(path: Path, texts: Sequence[Path], tables: Sequence[Path], columns: Columns) -> bool:
    """Whether of tables and texts beside them the tables are the data: licences and notes are texts, too.

    Raises:
        DataError: where both may be meant, since texts lie in two folders or more.
    """
    fitting = _fitting(path, tables, columns)
    if fitting is None and {kind_of(file) for file in tables} == {".json"}:
        return False
    if len({class_of(text) for text in texts}) > 1:
        raise DataError(
            f"the folder holds both tables ({tables[0]}) and CLASS/NAME.txt files ({texts[0]})",
            where=path,
            hint=f"give {path / (fitting or tables[0])}, or a folder that holds the classes alone",
        )
    return True


def _fitting(path: Path, tables: Sequence[Path], columns: Columns) -> Path | None:
    """Return the first table whose first row has the columns that are asked for."""
    for file in tables:
        try:
            found = next(file_records(path / file, columns), None)
        except DataError:
            continue
        there = {**_known(file), **found.values} if found else {}
        if there and all(name in there or "." in name for name in columns.wanted):
            return file
    return None


def _bare(file: Path) -> bool:
    """Whether a name has no ending: collections of mail and news number their files."""
    return not file.suffix or file.suffix[1:].isdigit()


def class_of(file: Path) -> str | None:
    """Return the class whose folder a text is in, None where it lies too high or too deep."""
    if len(file.parts) == 2:
        return file.parts[0]
    return file.parts[1] if len(file.parts) == 3 and split_of(file.parts[0]) else None


def split_of(name: str) -> str | None:
    """Return the split that a folder or file is named after, None where it is named after none."""
    found = SPLIT.fullmatch(name)
    return SPLITS.get(found[1].lower(), found[1].lower()) if found else None


def _saved_splits(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield the rows of what `datasets.DatasetDict.save_to_disk` wrote."""
    try:
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        names = [str(split) for split in splits]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
        raise DataError(
            f"not what save_to_disk writes: {problem!r}", where=path / "dataset_dict.json"
        ) from None
    for name in names:
        if name in {"", ".", ".."} or "/" in name or "\\" in name:
            raise DataError(f"{name!r} is no name of a split", where=path / "dataset_dict.json")
        yield from _with(_saved(path / name, columns), {"split": name})


def _saved(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield the rows of what `datasets.save_to_disk` wrote."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        info = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))
        files = [path / Path(file["filename"]).name for file in state["_data_files"]]
        classes = feature_names(info.get("features"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise DataError(f"not what save_to_disk writes: {problem!r}", where=path) from None
    for file in files:
        yield from file_records(file, columns, classes)


def _classes(path: Path, texts: Sequence[Path], columns: Columns) -> Iterator[Record]:
    """Yield one row per file: Windows-1252 where it is not UTF-8."""
    for number, inside in enumerate(texts, start=1):
        file = path / inside
        raw = file.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            try:
                text = raw.decode("cp1252")
            except UnicodeDecodeError as problem:
                raise DataError(f"neither UTF-8 nor Windows-1252 text: {problem}", where=file) from None
        split = {"split": split_of(inside.parts[0])} if len(inside.parts) == 3 else {}
        yield Record(
            str(file), number, {**split, columns.text: text, columns.label or "label": file.parent.name}
        )


def _shards(path: Path, files: Sequence[Path], columns: Columns) -> Iterator[Record]:
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) != 1:
        said = (
            f"holds files of several kinds ({', '.join(kinds)})" if kinds else "holds no CLASS/NAME.txt files"
        )
        raise DataError(
            f"the folder {said}",
            where=path,
            hint=f"give one file, such as {path / (_fitting(path, files, columns) or files[0])}"
            if kinds
            else "one folder of .txt files per class, perhaps in one per split (train, test), or files of one"
            f" kind: {', '.join(KINDS)}",
        )
    number = 0
    seen = _Headers(path)
    for file in files:
        known = _known(file)
        inner = replace(columns, label=None) if columns.label in known else columns
        rows = _with(file_records(path / file, inner), known)
        for place, record in enumerate(rows):
            number += 1
            if place == 0 and kinds[0] not in OBJECTS:
                seen.add(file, record, inner)
            yield Record(record.place, number, record.values)


class _Headers:
    """The columns that shards have; all of one split have those that are asked for, or none has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: dict[tuple[object, str], tuple[Path, bool]] = {}

    def add(self, file: Path, record: Record, columns: Columns) -> None:
        """Note the columns of a shard. Raises DataError where another shard disagrees."""
        for name in columns.wanted:
            there = name in record.values or "." in name
            other, had = self.first.setdefault((record.values.get("split"), name), (file, there))
            if there != had:
                lacking, having = (file, other) if had else (other, file)
                raise DataError(
                    f"there is no column {name!r}, which {having} has",
                    where=self.path / lacking,
                    hint="the files of a folder are read as one table: rename the column, or give one file",
                )


def _known(file: Path) -> dict[str, Any]:
    """Return the values that the names of a shard and of its folders tell: its split, and `column=value`."""
    known: dict[str, Any] = {}
    split = SPLIT.match(file.name)
    if split:
        known["split"] = split_of(split[1])
    elif len(file.parts) > 1 and (outer := split_of(file.parts[0])):
        known["split"] = outer
    for part in file.parts[:-1]:
        name, equals, value = part.partition("=")
        if equals:
            known[name] = None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
    return known


def _with(records: Iterator[Record], known: dict[str, Any]) -> Iterator[Record]:
    return (Record(r.place, r.number, {**known, **r.values}) for r in records)


def _natural(file: Path) -> list[tuple[int, str]]:
    """Return what sorts `part-2` before `part-10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", str(file))]
