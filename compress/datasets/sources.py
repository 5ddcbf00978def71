"""Sources of labelled texts: files and folders, also inside packages, and the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import islice
from pathlib import Path

from compress.recipes.data_part import DataPart
from contract.errors import DataError, EnvironmentProblem
from tables.files import Columns, Record
from tables.hub import named as class_name
from tables.labelled import Labelled, checked
from tables.sources import records_of


@dataclass(frozen=True)
class Row:
    """One labelled text, where it came from (file and row, for messages), and what was cut off it.

    `exact` says that upper and lower case are told apart, as in the base64 of an image.
    """

    text: str
    label: str
    slices: tuple[str, ...]
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
    columns = columns_of(part)
    return rows_of(source_records(source, columns), columns, source)


def read_unlabelled(source: str, part: DataPart) -> list[Row]:
    """Read the texts of one source, each with the label "" whatever it says. Raises as `read_source`."""
    columns = Columns(part.text, None, None)
    found = rows_of(source_records(source, columns), columns, source)
    return [replace(row, slices=()) for row in found]


def columns_of(part: DataPart) -> Columns:
    """Return the columns that a recipe names."""
    return Columns(part.text, part.label, part.slice)


def rows_of(records: Iterator[Record], columns: Columns, source: str, *, exact: bool = False) -> list[Row]:
    """Return the checked rows of some records. Raises DataError."""
    _, split = located(source)
    found: Labelled = checked(records, columns, where=source, split=split, unlabelled="refuse")
    return [
        Row(text, label or "", slices, place, exact=exact)
        for text, label, slices, place in zip(
            found.texts, found.labels, found.slices, found.places, strict=True
        )
    ]


def source_records(source: str, columns: Columns) -> Iterator[Record]:
    """Yield the rows of one source as they are, each with its place. Raises as `read_source`."""
    if source.startswith("hf:"):
        return _hub(source.removeprefix("hf:"))
    path, _ = located(source)
    return records_of(path or Path(source), columns)


def located(source: str) -> tuple[Path | None, str | None]:
    """Return the path of a source, None where it is none, and the split that `FOLDER@SPLIT` asks for.

    Raises as `package_path`.
    """
    if source.startswith(("hf:", "sklearn:")):
        return None, None
    if source.startswith("package:"):
        return package_path(source), None
    folder, at, split = source.rpartition("@")
    if at and split and "/" not in split and not Path(source).exists() and Path(folder).is_dir():
        return Path(folder), split
    return Path(source), None


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


def _hub(name: str) -> Iterator[Record]:
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
        # Lists of class numbers keep the names inside.
        inner = {name: getattr(feature, "feature", feature) for name, feature in table.features.items()}
        classes = {name: one.names for name, one in inner.items() if getattr(one, "names", None)}
        for number, record in enumerate(table, start=1):
            known = {name: class_name(record[name], names) for name, names in classes.items()}
            yield Record(f"hf:{repository}@{title}: row {number}", number, {**record, **known})
