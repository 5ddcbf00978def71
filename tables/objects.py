"""JSON of labelled rows: one object a line, or one document in any of the forms that libraries write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from contract.errors import DataError
from tables.problems import refuse

WRAPPERS = ("data", "records", "rows", "examples", "items")

_BETWEEN = re.compile(r"[\s\x1e]*,?[\s\x1e]*")


def line_records(content: str, where: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line from 1, object) of JSON lines, or (row from 1, object) of other JSON under that ending.

    Raises:
        DataError: it lists every line that is no object.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    problems: list[tuple[str, str]] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = _decoded(line)
        except ValueError as problem:
            problems.append((f"{where}: row {number}", str(problem)))
            continue
        if isinstance(record, dict):
            found.append((number, record))
        else:
            problems.append((f"{where}: row {number}", "every line must hold a JSON object"))
    other = _other_form(content, where) if problems else None
    if other is None:
        refuse(problems, where=where, hint=_remedy(content) if problems else None)
    yield from found if other is None else enumerate(other, start=1)


def document_records(content: str, where: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row from 1, object) of one JSON document, or of objects one after another.

    A document is a list of objects, also under `data` and the like; an object of columns (lists, or objects
    by row, as pandas writes); or `columns` with `data`, a list of rows.

    Raises:
        DataError: when it is none of these.
    """
    if not content.strip():
        return
    try:
        rows = _objects(_decoded(content), where)
    except ValueError as problem:
        found = _sequence(content)
        if found is None and _holds_lines(content):
            yield from line_records(content, where)
            return
        if found is None:
            raise DataError(str(problem), where=where, hint=_remedy(content)) from None
        rows = found
    yield from enumerate(rows, start=1)


def _other_form(content: str, where: object) -> list[dict[str, Any]] | None:
    """Return the objects of what is no JSON lines: one document, or objects that end anywhere in a line."""
    try:
        return _objects(_decoded(content), where)
    except (ValueError, DataError):
        return _sequence(content)


def _sequence(content: str) -> list[dict[str, Any]] | None:
    """Return objects that stand one after another, None where anything else does.

    Between them are blanks and line ends, perhaps a comma, or the record separator of RFC 7464.
    """
    rows: list[dict[str, Any]] = []
    at = _after_blanks(content, 0)
    while at < len(content):
        try:
            row, at = _DECODER.raw_decode(content, at)
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, dict):
            return None
        rows.append(row)
        at = _after_blanks(content, at)
    return rows


def _after_blanks(content: str, at: int) -> int:
    blanks = _BETWEEN.match(content, at)
    return blanks.end() if blanks else at


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"one object names {next(n for n in names if names.count(n) > 1)!r} twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object_of)


def _decoded(content: str) -> Any:
    """Return a JSON value. Raises ValueError with the rule that it breaks."""
    try:
        return _DECODER.decode(content)
    except json.JSONDecodeError as problem:
        before, after = content[: problem.pos].rstrip(), content[problem.pos :].lstrip()
        comma = before.endswith(",") and after[:1] in {"]", "}"}
        raise ValueError(
            f"not JSON: {problem}" + ("; the comma before it has to go" if comma else "")
        ) from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    except ValueError as problem:
        too_long = "set_int_max_str_digits" in str(problem)
        raise ValueError("a number has more digits than are read" if too_long else str(problem)) from None


def _remedy(content: str) -> str | None:
    start = content.lstrip()[:200]
    if start.startswith(("{'", "[{'")):
        return 'these are literals of Python: json.dumps(row) writes them as JSON, with "'
    if not start.startswith(("{", "[")) and start:
        return "if this is a table with separators, let its name end in .csv or .tsv"
    return None


def _objects(document: Any, where: object) -> list[dict[str, Any]]:
    if isinstance(document, list):
        wrong = [
            (f"{where}: row {number}", "must be a JSON object")
            for number, record in enumerate(document, start=1)
            if not isinstance(record, dict)
        ]
        refuse(wrong, where=where)
        return document
    if isinstance(document, dict):
        names, rows = document.get("columns"), document.get("data")
        if isinstance(names, list) and isinstance(rows, list):
            _require_names(names, where)
            refuse(
                [
                    (f"{where}: row {number}", f"must be a list of {len(names)}, as `columns` says")
                    for number, row in enumerate(rows, start=1)
                    if not isinstance(row, list) or len(row) != len(names)
                ],
                where=where,
            )
            return [dict(zip(map(str, names), row, strict=True)) for row in rows]
        for wrapper in WRAPPERS:
            if isinstance(document.get(wrapper), list) and all(
                isinstance(row, dict) for row in document[wrapper]
            ):
                return list(document[wrapper])
        columns = list(document.values())
        if columns and all(isinstance(column, list) for column in columns):
            if len({len(column) for column in columns}) == 1:
                return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]
        elif columns and all(isinstance(column, dict) for column in columns):
            return _by_row(document)
        elif columns:
            return [document]
    raise DataError(
        "holds no rows: a list of objects is read, or an object of columns of one length", where=where
    )


def _require_names(names: list[Any], where: object) -> None:
    """Raise DataError unless every column has a name of its own; pandas also writes numbers."""
    if not all(isinstance(name, str | int) for name in names):
        raise DataError("`columns` must be a list of names", where=where)
    if len({str(name) for name in names}) < len(names):
        raise DataError("`columns` has one name twice", where=where)


def _by_row(document: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of columns by row, or of rows by number, whichever the keys show."""
    first = next(iter(document.values()))
    if all(key.lstrip("-").isdigit() for key in first) and not all(key.isdigit() for key in document):
        return [{name: column.get(row) for name, column in document.items()} for row in first]
    return list(document.values())


def _holds_lines(content: str) -> bool:
    first = next((line for line in content.split("\n") if line.strip()), "")
    try:
        return isinstance(_decoded(first), dict)
    except ValueError:
        return False
