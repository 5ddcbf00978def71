"""Reading back the file of rows to label, whatever spreadsheet it went through."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import DataError
from contract.labels import LABEL, NO_LABEL_FITS, PROBABILITY, ROW, SAMPLE, SCORE, TEXT, RowToLabel, Sampling
from tables.delimited import delimited_records
from tables.labels import label_name, shown

AGAIN = "sluice label FAMILY --budget N --out FILE writes such a file"


@dataclass(frozen=True)
class RowsToLabel:
    """The rows of one file, each with its number there.

    `sampling` is None where the file does not say how they were drawn: somebody else's sample.
    """

    rows: tuple[RowToLabel, ...]
    numbers: tuple[int, ...]
    sampling: Sampling | None
    where: Path

    def place(self, index: int) -> str:
        """Return file and row of one of the rows, for messages."""
        return f"{self.where}: row {self.numbers[index]}"


def read_rows_to_label(path: Path, labels: Collection[str]) -> RowsToLabel:
    """Read a CSV of rows to label.

    Args:
        path: the file.
        labels: the label set, as texts.

    Raises:
        DataError: naming file, row and rule.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as problem:
        raise DataError(f"cannot be read: {problem.strerror}", where=path, hint=AGAIN) from None
    except UnicodeDecodeError:
        raise DataError("must be UTF-8 text", where=path, hint="save it as CSV UTF-8") from None
    records = list(delimited_records(content, path, [ROW, PROBABILITY, LABEL], unique=True))
    if not records:
        raise DataError("there are no rows", where=path, hint=AGAIN)
    names = list(records[0][1])
    for name in (ROW, PROBABILITY, LABEL):
        if name not in names:
            raise DataError(f"there is no column `{name}`", where=path, hint=AGAIN)
    answers = [name for name in names if name.endswith("/prediction")]
    tokens = {str(cells.get(SAMPLE) or "").strip() for _, cells in records}
    if len(tokens) > 1:
        number, _ = next(r for r in records if str(r[1].get(SAMPLE) or "").strip() != _token(records[0]))
        raise DataError(
            f"its `{SAMPLE}` is another than that of the first row: rows of two draws are in one file",
            where=f"{path}: row {number}",
            hint="read each file by itself",
        )
    token = tokens.pop()
    sampling = Sampling.parse(token, where=f"{path}: row {records[0][0]}") if token else None
    wanted = [f"{sampling.cheap}/prediction", f"{sampling.reference}/prediction"] if sampling else answers[:2]
    rows = [_row(cells, wanted, labels, f"{path}: row {number}") for number, cells in records]
    seen: dict[int, int] = {}
    for (number, _), row in zip(records, rows, strict=True):
        if row.row in seen:
            raise DataError(
                f"it is row {row.row} of the table, as row {seen[row.row]} is",
                where=f"{path}: row {number}",
                hint="leave one of the two",
            )
        seen[row.row] = number
    return RowsToLabel(tuple(rows), tuple(number for number, _ in records), sampling, path)


def _token(record: tuple[int, dict[str, Any]]) -> str:
    return str(record[1].get(SAMPLE) or "").strip()


def _row(cells: dict[str, Any], answers: list[str], labels: Collection[str], where: str) -> RowToLabel:
    try:
        row = int(str(cells[ROW]).strip())
    except ValueError:
        raise DataError(
            f"`{ROW}` must be a whole number, not {shown(cells[ROW])}", where=where, hint=AGAIN
        ) from None
    probability = _number(cells, PROBABILITY, where)
    if not 0.0 < probability <= 1.0:
        raise DataError(
            f"`{PROBABILITY}` is {probability:g}; it must be above 0 and at most 1", where=where, hint=AGAIN
        )
    told = [_answer(cells.get(name)) for name in answers] + [None] * (2 - len(answers))
    text = cells.get(TEXT)
    return RowToLabel(
        row,
        told[0],
        told[1],
        _number(cells, SCORE, where) if SCORE in cells else 0.0,
        probability,
        _label(cells[LABEL], labels, where),
        None if text is None else str(text),
    )


def _number(cells: dict[str, Any], name: str, where: str) -> float:
    said = str(cells[name] or "").strip()
    if not said:
        raise DataError(
            f"`{name}` is missing: without it a label says nothing about the rows that were not drawn",
            where=where,
            hint=AGAIN,
        )
    try:
        # Some spreadsheets write 0,5.
        return float(said.replace(",", "."))
    except ValueError:
        raise DataError(f"`{name}` must be a number, not {shown(said)}", where=where, hint=AGAIN) from None


def _answer(value: Any) -> str | None:
    return label_name(value)


def _label(value: Any, labels: Collection[str], where: str) -> str | None:
    try:
        name = label_name(value)
    except ValueError as problem:
        raise DataError(f"the label {problem}", where=where) from None
    if name is None or name in labels or name == NO_LABEL_FITS:
        return name
    listed = ", ".join(list(labels)[:20]) + (", ..." if len(labels) > 20 else "")
    raise DataError(
        f"the label {shown(name)} is not in the label set",
        where=where,
        hint=f"labels: {listed}; {NO_LABEL_FITS} where none of them is right; an empty cell where nobody "
        "has looked",
    )
