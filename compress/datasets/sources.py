"""Readers of labelled texts: CSV, Parquet, JSONL, folders of files, files inside packages, and `datasets`."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from compress.recipes.data_part import UNLABELLED, DataPart
from contract.errors import DataError, EnvironmentProblem

Record = tuple[str, dict[str, Any]]

# Characters of one CSV cell, which may hold an image in base64: the most that a C long holds everywhere.
LONGEST_CELL = 2**31 - 1


@dataclass(frozen=True)
class Row:
    """One labelled text, where it came from (file and row, for messages), and what was cut off it.

    `exact` says that upper and lower case are told apart, as in the base64 of an image.
    """

    text: str
    label: str
    slice: str | None
    place: str
    rest: str = ""
    exact: bool = False

    def cut(self, words: int) -> Row:
        """Return the row with the first so many words of its text; `rest` holds what follows."""
        found = list(islice(re.finditer(r"\S+", self.text), words + 1))
        if len(found) <= words:
            return self
        border = found[words].start()
        return replace(self, text=self.text[:border].rstrip(), rest=self.text[border:])


def read_source(source: str, part: DataPart) -> list[Row]:
    """Read one source of a recipe.

    Raises:
        DataError: a missing file or column, an empty or absent text or label; names file, row and rule.
        EnvironmentProblem: a package or the network is missing.
    """
    return [checked(place, record, part) for place, record in records_of(source, part)]


def read_unlabelled(source: str, part: DataPart) -> list[Row]:
    """Read the texts of one source, each with the label "" whatever it says. Raises as `read_source`."""
    only_text = part.model_copy(update={"slice": None})
    found = (
        checked(place, {**record, part.label: UNLABELLED}, only_text)
        for place, record in records_of(source, part)
    )
    return [replace(row, label="") for row in found]


def records_of(source: str, part: DataPart) -> Iterator[Record]:
    """Yield the rows of one source as they are, each with its place. Raises as `read_source`."""
    if source.startswith("hf:"):
        yield from _hub(source.removeprefix("hf:"), part)
        return
    path = package_path(source) if source.startswith("package:") else Path(source)
    if path.is_dir():
        yield from _folder(path, part)
        return
    readers: dict[str, Callable[[Path], Iterator[Record]]] = {
        ".csv": _csv,
        ".parquet": _parquet,
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
    }
    if path.suffix.lower() not in readers:
        raise DataError(
            f"files of kind {path.suffix or 'without suffix'!r} are not read",
            where=path,
            hint=f"one of {', '.join(readers)}, or a folder with one folder of files per class",
        )
    if not path.is_file():
        raise DataError("there is no such file", where=path)
    yield from readers[path.suffix.lower()](path)


def package_path(source: str) -> Path:
    """Return the path that `package:DISTRIBUTION/PATH` names; the package's code is never imported.

    PATH is inside the distribution's own import folder.

    Raises:
        EnvironmentProblem: when the distribution is not installed.
        DataError: when it has no such file or folder.
    """
    name, _, inner = source.removeprefix("package:").partition("/")
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise EnvironmentProblem(
            f"the package {name!r} is not installed", hint=f"pip install {name}"
        ) from None
    tops = {file.parts[0] for file in distribution.files or () if len(file.parts) > 1}
    for top in sorted(tops):
        candidate = Path(str(distribution.locate_file(top))) / inner
        if not top.endswith((".dist-info", ".data")) and top not in {"..", "bin"} and candidate.exists():
            return candidate
    raise DataError(f"the package {name!r} holds no {inner!r}", where=source)


def checked(place: str, record: dict[str, Any], part: DataPart) -> Row:
    """Return the row of a record. Raises DataError for absent, empty or wrongly typed values."""
    for column in (part.text, part.label, *([part.slice] if part.slice else [])):
        if column not in record:
            raise DataError(
                f"there is no column {column!r}",
                where=place,
                hint=f"columns: {', '.join(map(str, record))}; data.text, data.label, data.slice",
            )
    text, label = record[part.text], record[part.label]
    for column, value in ((part.text, text), (part.label, label)):
        if value is None or _is_nan(value):
            raise DataError(f"`{column}` is NaN or missing", where=place)
    if not isinstance(text, str):
        raise DataError(f"`{part.text}` must hold text, not {type(text).__name__}", where=place)
    if not text.strip():
        raise DataError(f"`{part.text}` is empty", where=place)
    name = str(label).strip()
    if len(name.splitlines()) > 1:
        raise DataError(f"`{part.label}` must be of one line, not {label!r}", where=place)
    if not name or isinstance(label, float | list | dict):
        raise DataError(f"`{part.label}` must be a name or an integer, not {label!r}", where=place)
    extra = record[part.slice] if part.slice else None
    named = None if extra is None or _is_nan(extra) else str(extra)
    return Row(text=text, label=name, slice=named, place=place, exact=part.input == "image")


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _csv(path: Path) -> Iterator[Record]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = _lines(reader)
            header = next(lines, [])
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise DataError(f"two columns are named {', '.join(map(repr, twice))}", where=path)
            for number, cells in enumerate(lines, start=1):
                if cells:
                    if len(cells) != len(header):
                        raise DataError(
                            f"{len(cells)} cells where the header has {len(header)}",
                            where=f"{path}: row {number}",
                        )
                    values = [math.nan if cell.strip().lower() == "nan" else cell for cell in cells]
                    yield f"{path}: row {number}", dict(zip(header, values, strict=True))
    except UnicodeDecodeError as problem:
        raise DataError(f"not UTF-8 text: {problem}", where=path) from None
    except csv.Error as problem:
        raise DataError(f"not readable CSV: {problem}", where=f"{path}: line {reader.line_num}") from None


def _lines(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield what a CSV reader reads, whose cells may have LONGEST_CELL characters.

    The module's limit is that of the process, so it is raised only while a line is read.
    """
    while True:
        limit = csv.field_size_limit(LONGEST_CELL)
        try:
            cells = next(reader, None)
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        yield cells


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as problem:
        raise DataError(f"not a readable Parquet file: {problem}", where=path) from None
    for number, record in enumerate(table.to_pylist(), start=1):
        yield f"{path}: row {number}", record


def _jsonl(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}: row {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise DataError(f"not JSON: {problem}", where=place) from None
            if not isinstance(record, dict):
                raise DataError("every line must hold a JSON object", where=place)
            yield place, record


def _folder(path: Path, part: DataPart) -> Iterator[Record]:
    files = sorted(path.glob("*/*.txt"))
    if not files:
        raise DataError("the folder holds no CLASS/NAME.txt files", where=path)
    for file in files:
        raw = file.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            try:
                text = raw.decode("cp1252")
            except UnicodeDecodeError as problem:
                raise DataError(f"neither UTF-8 nor Windows-1252 text: {problem}", where=file) from None
        yield str(file), {part.text: text, part.label: file.parent.name}


def _hub(name: str, part: DataPart) -> Iterator[Record]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise EnvironmentProblem(
            "`hf:` sources need the package datasets", hint="pip install 'sluicegate[compress]'"
        ) from None
    repository, _, split = name.partition("@")
    try:
        found = load_dataset(repository, split=split or None)
    except Exception as problem:  # noqa: BLE001 - the hub client raises many kinds; all mean: not available
        raise EnvironmentProblem(
            f"hf:{name} could not be loaded: {problem}",
            hint="check name and network, or give a local CSV, Parquet or JSONL file",
        ) from None
    for title, table in found.items() if hasattr(found, "items") else [(split, found)]:
        feature = table.features.get(part.label)
        names = getattr(feature, "names", None)
        for number, record in enumerate(table, start=1):
            label = record.get(part.label)
            named = {part.label: names[label]} if names is not None and isinstance(label, int) else {}
            yield f"hf:{repository}@{title}: row {number}", {**record, **named}
