"""Rows of Parquet and Arrow files, as tables and as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import DataError
from tables.disguises import refuse_disguised
from tables.hub import class_names, name_classes

PARQUET = (".parquet", ".parq", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
ENDINGS = (*PARQUET, *ARROW)


def columnar_records(
    path: Path, wanted: Sequence[str], maybe: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row from 1, values by column) of a Parquet, Feather or Arrow file, of some columns.

    Numbers of a column that the file's metadata name as a ClassLabel of `datasets` become its names, and -1,
    which stands for none there, None. Columns that are wanted, or maybe there, are read; all of them where a
    wanted one is missing.

    Raises:
        DataError: an unreadable file, a wanted column twice, or a number beyond the names.
    """
    table = columnar_table(path, wanted, maybe)
    for name in wanted:
        if table.column_names.count(name) > 1:
            raise DataError(f"two columns are named {name!r}", where=path)
    classes = class_names(table.schema.metadata or {})
    number = 0
    for batch in table.to_batches(max_chunksize=4096):
        try:
            records = batch.to_pylist()
        except (OverflowError, ValueError) as problem:
            raise DataError(
                f"a column holds a value beyond what is read: {problem}",
                where=path,
                hint="cast columns of times and spans to text",
            ) from None
        for record in records:
            number += 1
            name_classes(record, classes, f"{path}: row {number}")
            yield number, record


def columnar_table(path: Path, wanted: Sequence[str] = (), maybe: Sequence[str] = ()) -> pa.Table:
    """Return the table of a Parquet, Feather or Arrow file: some columns, or all where one is missing.

    A file whose name does not tell is taken for Parquet. Raises DataError.
    """
    try:
        table = _table_of(path, wanted, maybe)
        table.validate(full=True)  # Arrow trusts lengths and offsets, and a damaged one ends the process
        return table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise _unreadable(path, problem) from None


def _unreadable(path: Path, problem: Exception) -> DataError:
    """Return what to say of a file that Arrow cannot read. Raises DataError for another kind of file."""
    parquet = path.suffix.lower() not in ARROW
    with path.open("rb") as file:
        head = file.read(4096)
        sign = b"PAR1" if parquet else b"ARROW1"
        whole = head.startswith(sign) and file.seek(-len(sign), 2) >= 0 and file.read() == sign
    if not head:
        return DataError("the file is empty", where=path)
    if not head.startswith(sign):
        refuse_disguised(head, path)
    elif not whole:
        return DataError(
            "its end is missing: it was cut off while it was written or copied",
            where=path,
            hint="copy or write it again",
        )
    plain = b"\0" not in head and head[:1].isascii()
    return DataError(
        f"not a readable {'Parquet' if parquet else 'Arrow'} file: {problem}",
        where=path,
        hint="it looks like text: let its name end in .csv or .jsonl if it is" if plain else None,
    )


def _table_of(path: Path, wanted: Sequence[str], maybe: Sequence[str]) -> pa.Table:
    if path.suffix.lower() not in ARROW:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            some = wanted and all(names.count(name) == 1 for name in wanted)
            return file.read(columns=[n for n in names if n in {*wanted, *maybe}] if some else None)
    raw = path.read_bytes()  # not mapped: a file that is cut while it is read would end the process
    opened = pa.ipc.open_file if raw.startswith(b"ARROW1") else pa.ipc.open_stream
    return opened(pa.py_buffer(raw)).read_all()
