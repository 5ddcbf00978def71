"""Rows of Parquet and Arrow files, with the names of classes that the Hugging Face Hub keeps beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import DataError
from tables.disguises import refuse_disguised

PARQUET = (".parquet", ".parq", ".pq")
ENDINGS = (*PARQUET, ".arrow", ".feather", ".ipc")
MISSING = -1


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
    try:
        table = _table_of(path, wanted, maybe)
    except (pa.ArrowException, OSError) as problem:
        raise unreadable(path, problem) from None
    for name in wanted:
        if table.column_names.count(name) > 1:
            raise DataError(f"two columns are named {name!r}", where=path)
    classes = class_names(table.schema.metadata or {})
    number = 0
    for batch in table.to_batches(max_chunksize=4096):
        for record in batch.to_pylist():
            number += 1
            for name in classes.keys() & record.keys():
                try:
                    record[name] = named(record[name], classes[name])
                except IndexError:
                    raise DataError(
                        f"`{name}` is {record[name]}; the file names {len(classes[name])} classes",
                        where=f"{path}: row {number}",
                    ) from None
            yield number, record


def unreadable(path: Path, problem: Exception) -> DataError:
    """Return what to say of a file that Arrow cannot read. Raises DataError for another kind of file."""
    parquet = path.suffix.lower() in PARQUET
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
    return DataError(f"not a readable {'Parquet' if parquet else 'Arrow'} file: {problem}", where=path)


def class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of classes by column that `datasets` keeps in a schema's metadata."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return feature_names(features)


def feature_names(features: Any) -> dict[str, list[str]]:
    """Return the names of classes by column of the features of `datasets`."""
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            found[column] = [str(name) for name in inner["names"]]
    return found


def named(value: Any, names: list[str]) -> Any:
    """Return the name of a class number, or of each in a list. Raises IndexError beyond the names."""
    if isinstance(value, list):
        return [named(one, names) for one in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value == MISSING:
        return None
    if value < 0:
        raise IndexError(value)
    return names[value]


def _table_of(path: Path, wanted: Sequence[str], maybe: Sequence[str]) -> pa.Table:
    if path.suffix.lower() in PARQUET:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            once = all(names.count(name) == 1 for name in wanted)
            return file.read(columns=[n for n in names if n in {*wanted, *maybe}] if once else None)
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid as problem:
            source.seek(0)
            if source.read(6) == b"ARROW1":
                raise problem from None
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()
