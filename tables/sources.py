"""Files and folders of labelled rows: their rows as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tables.files import Columns, Record, file_records
from tables.folders import folder_records
from tables.paths import require_readable


def records_of(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield the rows of a file or folder of any kind that is read, as they are.

    Raises:
        DataError: naming the file and the rule.
    """
    require_readable(path)
    yield from folder_records(path, columns) if path.is_dir() else file_records(path, columns)
