"""Labelled texts: the rows of any file or folder, checked and named in one way for every command."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from contract.errors import DataError
from contract.files import sha256_of_file, sha256_of_folder, sha256_of_json
from tables.files import Columns, Record
from tables.labels import label_name
from tables.notes import lone_labels_note, notes_on
from tables.paths import CHANGED, CHANGED_HINT, state_of
from tables.problems import refuse
from tables.sources import records_of

ABSENT = object()


@dataclass(frozen=True)
class Labelled:
    """N labelled texts, in the order of their file.

    Attributes:
        texts: [N], none empty, each as it was written.
        labels: [N] names (`tables.labels`), None where unlabelled.
        slices: [N] the names of each row's slices.
        rows: [N] row in the file, from 0, header not counted.
        places: [N] file and row, from 1, for messages.
        sha256: hash of the file or folder.
        notes: what a user should know of how it was read.
    """

    texts: tuple[str, ...]
    labels: tuple[str | None, ...]
    slices: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]
    places: tuple[str, ...] = ()
    sha256: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted({label for label in self.labels if label is not None}))


def read_labelled(
    path: Path,
    *,
    text: str = "text",
    label: str | None = "label",
    slice_column: str | None = None,
    split: str | None = None,
) -> Labelled:
    """Read labelled texts from a file or folder of any kind that `records_of` knows.

    Args:
        path: the file or folder.
        text: name of the text column.
        label: name of the label column, whose values may be null; None reads texts alone.
        slice_column: column with a name, or a list of names, of slices; by default `slice`, if present.
        split: keep only the rows whose `split` column says so.

    Raises:
        DataError: naming file, row and rule, the first twenty rows at once.
    """
    columns = Columns(text, label, slice_column)
    before = state_of(path)
    found = checked(records_of(path, columns), columns, where=path, split=split)
    digest = sha256_of_folder(path) if path.is_dir() else sha256_of_file(path)
    if state_of(path) != before:
        raise DataError(CHANGED, where=path, hint=CHANGED_HINT)
    return Labelled(found.texts, found.labels, found.slices, found.rows, found.places, digest, found.notes)


def from_rows(rows: Sequence[tuple[str, str | None]]) -> Labelled:
    """Return labelled texts from memory. Raises DataError for empty input or an empty text."""
    records = (
        Record(f"row {number}", number, {"text": text, "label": label})
        for number, (text, label) in enumerate(rows, start=1)
    )
    found = checked(records, Columns(), where="rows")
    digest = sha256_of_json(list(rows))
    return Labelled(found.texts, found.labels, found.slices, found.rows, found.places, digest, found.notes)


def checked(
    records: Iterable[Record],
    columns: Columns,
    *,
    where: object,
    split: str | None = None,
    unlabelled: Literal["keep", "refuse"] = "keep",
) -> Labelled:
    """Return the rows of some records, every text and label checked.

    Raises:
        DataError: a missing column; texts that are empty, no text or hold half a surrogate pair; labels that
            are no names or, where refused, missing. All such rows are found, the first twenty listed.
    """
    texts: list[str] = []
    labels: list[str | None] = []
    slices: list[tuple[str, ...]] = []
    rows: list[int] = []
    places: list[str] = []
    problems: list[tuple[str, str]] = []
    odd: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    look = _Lookup()
    spread: dict[str, set[str]] = {}
    for record in records:
        _note_split(record, columns.label, spread)
        if split is not None:
            said = _split_in(look(record, "split"))
            splits[str(said)] += 1
            if said != split:
                continue
        text = look(record, columns.text)
        written = None if columns.label is None else look(record, columns.label)
        rules = [] if (rule := text_rule(text, columns.text)) is None else [rule]
        label: str | None = None
        named: tuple[str, ...] = ()
        try:
            label = name_in_cell(written)
            if label is None and unlabelled == "refuse" and columns.label is not None:
                rules.append(f"`{columns.label}` is NaN or missing")
        except ValueError as problem:
            rules.append(f"`{columns.label}` {problem}")
        try:
            named = slice_names(
                record.values.get("slice") if columns.slice is None else look(record, columns.slice)
            )
        except ValueError as problem:
            rules.append(f"`{columns.slice or 'slice'}` {problem}")
        if rules:
            problems.append((record.place, "; ".join(rules)))
            continue
        if isinstance(written, str) and label is not None and label != written.strip():
            odd[label] += 1
        texts.append(text.decode() if isinstance(text, bytes) else text)
        labels.append(label)
        slices.append(named)
        rows.append(record.number - 1)
        places.append(record.place)
    look.require()
    if split is not None and not texts and splits:
        raise DataError(
            f"no row has split {split!r}", where=where, hint=f"splits: {', '.join(sorted(splits))}"
        )
    refuse(problems, where=where)
    if not texts:
        raise DataError("there are no rows", where=where)
    lone = lone_labels_note(spread)
    notes = (*notes_on(odd, labels), *([] if lone is None else [lone]))
    return Labelled(tuple(texts), tuple(labels), tuple(slices), tuple(rows), tuple(places), notes=notes)


def _note_split(record: Record, column: str | None, splits: dict[str, set[str]]) -> None:
    """Add the split of a row to those of its label, where it has both."""
    split = record.values.get("split")
    if column is None or split is None:
        return
    try:
        label = name_in_cell(value_at(record.values, column))
    except ValueError:
        return
    if label is not None:
        splits.setdefault(label, set()).add(str(split))


def _split_in(value: Any) -> str | None:
    """Return the name of a split, what is no name as it is written."""
    try:
        return label_name(value)
    except ValueError:
        return str(value)


def slice_names(value: Any) -> tuple[str, ...]:
    """Return the names of slices in one cell: a name, a list of names, or such a list written as text.

    Raises:
        ValueError: with the rule, where one is no name.
    """
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        value = _list_in(value.strip())
    many = value if isinstance(value, list | tuple) else [value]
    names = [label_name(one) for one in many]
    return tuple(dict.fromkeys(name for name in names if name is not None))


class _Lookup:
    """Gets values by column, None where a row lacks one, and knows the columns that no row has."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.missing: dict[str, Record] = {}

    def __call__(self, record: Record, name: str) -> Any:
        value = value_at(record.values, name)
        if value is ABSENT:
            self.missing.setdefault(name, record)
            return None
        self.there.add(name)
        return value

    def require(self) -> None:
        """Raise DataError for the first column that was looked for and is in no row."""
        for name, record in self.missing.items():
            if name in self.there:
                continue
            have = [str(key) for key in record.values]
            alike = [key for key in have if key.casefold() == name.casefold()]
            meant = f"`{alike[0]}` is there, and case counts; " if alike else ""
            raise DataError(
                f"there is no column {name!r}",
                where=record.place,
                hint=f"{meant}columns: {', '.join(have)}; --text, --label and --slice name others "
                "(data.text, data.label, data.slice in recipes)",
            )


def name_in_cell(value: Any) -> str | None:
    """Return the name of a cell's label, also of a list written as text. Raises as `label_name`."""
    return _name_of_text(value) if isinstance(value, str) else label_name(value)


@lru_cache(maxsize=4096)
def _name_of_text(written: str) -> str | None:
    cell = written.strip()
    return label_name(_list_in(cell) if cell.startswith("[") and cell.endswith("]") else written)


def value_at(values: Any, name: str) -> Any:
    """Return a value by its name, or by the dotted path to it; ABSENT where there is none."""
    if isinstance(values, dict) and name in values:
        return values[name]
    found = values
    if "." not in name:
        return ABSENT
    for part in name.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal():
            found = found[int(part)] if int(part) < len(found) else None
        elif found is None:
            return None
        else:
            return ABSENT
    return found


def text_rule(value: Any, name: str) -> str | None:
    """Return the rule that a text breaks, if it does."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return f"`{name}` is not UTF-8 text"
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124
        return f"`{name}` is NaN or missing"
    if isinstance(value, dict):
        inside = next((key for key, one in value.items() if isinstance(one, str)), "PART")
        return f"`{name}` must hold text, not an object; a name with a dot leads inside: {name}.{inside}"
    if not isinstance(value, str):
        return f"`{name}` must hold text, not {type(value).__name__}"
    if not value.strip():
        return f"`{name}` is empty"
    if "\0" in value:
        return f"`{name}` holds a NUL character"
    if not value.isascii():
        half = next((c for c in value if "\ud800" <= c <= "\udfff"), None)
        if half is not None:
            return f"`{name}` holds half of a surrogate pair (U+{ord(half):04X}): a character was cut in two"
    return None


def _list_in(written: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(written)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list):
            return found
    return written
