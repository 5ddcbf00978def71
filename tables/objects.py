"""JSON of labelled rows: one object a line, or one document in any of the forms that libraries write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from contract.errors import DataError
from tables.problems import refuse

WRAPPERS = ("data", "records", "rows", "examples", "items")


def line_records(content: str, where: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line from 1, object) of JSON lines. Raises DataError, which lists every line that is none."""
    found: list[tuple[int, dict[str, Any]]] = []
    problems: list[tuple[str, str]] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as problem:
            problems.append((f"{where}: row {number}", f"not JSON: {problem}"))
            continue
        if isinstance(record, dict):
            found.append((number, record))
        else:
            problems.append((f"{where}: row {number}", "every line must hold a JSON object"))
    refuse(problems, where=where)
    yield from found


def document_records(content: str, where: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row from 1, object) of one JSON document, or of JSON lines under the same ending.

    A document is a list of objects, also under `data` and the like; an object of columns (lists, or objects
    by row, as pandas writes); or `columns` with `data`, a list of rows.

    Raises:
        DataError: when it is none of these.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as problem:
        if _holds_lines(content):
            yield from line_records(content, where)
            return
        raise DataError(f"not JSON: {problem}", where=where) from None
    yield from enumerate(_objects(document, where), start=1)


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
            refuse(
                [
                    (f"{where}: row {number}", f"must be a list of {len(names)}, as `columns` says")
                    for number, row in enumerate(rows, start=1)
                    if not isinstance(row, list) or len(row) != len(names)
                ],
                where=where,
            )
            return [dict(zip(names, row, strict=True)) for row in rows]
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


def _by_row(document: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of columns by row, or of rows by number, whichever the keys show."""
    first = next(iter(document.values()))
    if all(key.lstrip("-").isdigit() for key in first) and not all(key.isdigit() for key in document):
        return [{name: column.get(row) for name, column in document.items()} for row in first]
    return list(document.values())


def _holds_lines(content: str) -> bool:
    first = next((line for line in content.split("\n") if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False
