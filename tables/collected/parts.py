"""Parts of a store of collected rows: Parquet files whose names say from when to when their rows are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.collected import SCHEMA, CollectedRow
from contract.errors import DataError
from contract.files import atomic_path

PROBABILITIES = "probabilities"
COLUMNS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("at_s", pa.float64(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("text_sha256", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("answer", pa.string(), nullable=False),
        pa.field(PROBABILITIES, pa.list_(pa.float32())),
        pa.field("model", pa.string()),
        pa.field("usd", pa.float64()),
        pa.field("latency_ms", pa.float64()),
        pa.field("source", pa.string()),
        pa.field("upstream", pa.string()),
    ],
    metadata={b"sluice.schema": str(SCHEMA).encode()},
)
_LATER = frozenset({"upstream"})
"""Columns that parts of earlier versions lack: null there."""
_NAME = re.compile(r"part-(\d{13})-(\d{13})-([A-Za-z0-9_]+)\.parquet\Z")


@dataclass(frozen=True)
class Part:
    """A file of rows, all from between two Unix milliseconds, both included."""

    path: Path
    first_ms: int
    last_ms: int


def list_parts(folder: Path) -> list[Part]:
    """Return the whole parts of a folder, oldest first; what is still being written has another name."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := _NAME.match(path.name):
            found.append(Part(path, int(match[1]), int(match[2])))
    return sorted(found, key=lambda part: (part.first_ms, part.path.name))


def table_of(rows: Sequence[CollectedRow]) -> pa.Table:
    """Return rows as a table."""
    plain = [name for name in COLUMNS.names if name != PROBABILITIES]
    columns = {
        name: pa.array([getattr(row, name) for row in rows], COLUMNS.field(name).type) for name in plain
    }
    told = [row.probabilities for row in rows]
    ends = np.cumsum([0, *(0 if one is None else len(one) for one in told)]).astype(np.int32)
    flat = np.fromiter(chain.from_iterable(one or () for one in told), np.float32, int(ends[-1]))
    missing = pa.array([one is None for one in told])
    columns[PROBABILITIES] = pa.ListArray.from_arrays(pa.array(ends), pa.array(flat), mask=missing)
    return pa.table([columns[name] for name in COLUMNS.names], schema=COLUMNS)


def write_part(folder: Path, rows: pa.Table, name: str) -> Path:
    """Write N >= 1 rows as one part, atomically: it is there whole, or not at all.

    Args:
        folder: of the parts.
        rows: of the columns above.
        name: letters, digits and `_`: no other part with rows of these milliseconds may have it.
    """
    first, last = (int(1000 * bound) for bound in _span(rows))
    path = folder / f"part-{first:013d}-{last:013d}-{name}.parquet"
    with atomic_path(path) as temporary:
        pq.write_table(rows, temporary, compression="zstd")
    return path


def read_parts(parts: Iterable[Part], columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of parts; a row that stands in two of them comes once.

    A part that has gone meanwhile, as another process removes or joins parts, raises FileNotFoundError.

    Raises:
        DataError: a part that is no such table, or of a newer schema.
    """
    wanted = COLUMNS.names if columns is None else list(dict.fromkeys(("id", *columns)))
    tables = [_read(part.path, wanted) for part in parts]
    if not tables:
        return pa.schema([COLUMNS.field(name) for name in wanted]).empty_table()
    return without_repeats(pa.concat_tables(tables))


def without_repeats(rows: pa.Table) -> pa.Table:
    """Return the rows without those whose id an earlier one has."""
    numbered = rows.append_column("_row", pa.array(range(len(rows)), pa.int64()))
    firsts = numbered.group_by("id").aggregate([("_row", "min")])["_row_min"]
    return rows if len(firsts) == len(rows) else rows.take(firsts.sort())


def newer_than(rows: pa.Table, at_s: float) -> pa.Table:
    """Return the rows from `at_s` on."""
    return rows.filter(pc.field("at_s") >= at_s)


def holds_texts(path: Path) -> bool:
    """Return whether a part has a text in it, by its footer alone."""
    footer = pq.ParquetFile(path).metadata
    column = COLUMNS.get_field_index("text")
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    nulls = [group.column(column).statistics for group in groups]
    return any(s is None or s.null_count < g.num_rows for s, g in zip(nulls, groups, strict=True))


def _span(rows: pa.Table) -> tuple[float, float]:
    found: dict[str, Any] = pc.min_max(rows["at_s"]).as_py()
    return found["min"], found["max"]


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        later = _LATER - set(pq.read_schema(path).names)
        found = pq.read_table(path, columns=[name for name in columns if name not in later])
        for name in later & set(columns):
            found = found.append_column(name, pa.nulls(len(found), pa.string()))
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise DataError(
            f"this part of what was collected cannot be read: {problem}",
            where=path,
            hint="move it away: the other parts are whole without it",
        ) from None
    schema = int((found.schema.metadata or {}).get(b"sluice.schema", b"0"))
    if schema > SCHEMA:
        raise DataError(
            f"its schema is {schema}, this version reads up to {SCHEMA}",
            where=path,
            hint="upgrade sluicegate",
        )
    if missing := [name for name in columns if name not in found.column_names]:
        raise DataError(f"it lacks the column {missing[0]!r}", where=path)
    return found.select(list(columns)).cast(pa.schema([COLUMNS.field(name) for name in columns]))
