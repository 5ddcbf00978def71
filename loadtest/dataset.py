"""Labelled texts from CSV, Parquet or JSONL: checked, in file order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from contract.errors import DataError
from contract.files import sha256_of_file, sha256_of_json

KINDS = (".csv", ".parquet", ".jsonl")
BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Labelled:
    """N texts to ask.

    Attributes:
        texts: [N], none empty.
        labels: [N], None where unlabelled.
        slices: [N] name of the slice, None where there is none.
        rows: [N] row in the file, header not counted.
        sha256: hash of the file.
    """

    texts: tuple[str, ...]
    labels: tuple[str | None, ...]
    slices: tuple[str | None, ...]
    rows: tuple[int, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted({label for label in self.labels if label is not None}))


def from_rows(rows: Sequence[tuple[str, str | None]]) -> Labelled:
    """Return labelled texts from memory. Raises DataError for empty input or an empty text."""
    texts = tuple(text for text, _ in rows)
    labels = tuple(label for _, label in rows)
    _check_texts(texts, tuple(range(len(texts))), "text", "rows")
    return Labelled(texts, labels, (None,) * len(texts), tuple(range(len(texts))), sha256_of_json(list(rows)))


def read_labelled(
    path: Path,
    *,
    text: str = "text",
    label: str = "label",
    slice_column: str | None = None,
    split: str | None = None,
) -> Labelled:
    """Read labelled texts.

    Args:
        path: a .csv (with header), .parquet or .jsonl file.
        text: name of the text column.
        label: name of the label column; strings or integers, null where unlabelled.
        slice_column: name of the slice column; by default `slice`, if the file has it.
        split: keep only the rows whose `split` column says so.

    Raises:
        DataError: naming file, row and rule.
    """
    table = _read_table(path, [text, label, "split", slice_column or "slice"])
    names = table.column_names
    wanted = [text, label, *([slice_column] if slice_column else []), *(["split"] if split else [])]
    for name in wanted:
        if names.count(name) != 1:
            rule = f"there is no `{name}` column" if name not in names else f"`{name}` occurs twice"
            raise DataError(rule, where=path, hint=f"columns are: {', '.join(names)}")
    rows = pa.array(range(table.num_rows), pa.int64())
    table = table.append_column("\0row", rows)
    if split:
        found = sorted({str(s) for s in pc.unique(table["split"]).to_pylist()})
        table = table.filter(pc.equal(table["split"].cast(pa.string()), split))
        if not table.num_rows:
            raise DataError(f"no row has split {split!r}", where=path, hint=f"splits: {', '.join(found)}")
    slice_name = slice_column or ("slice" if "slice" in names else None)
    at = tuple(table["\0row"].to_pylist())
    texts = tuple(_strings(table[text], at, text, path))
    _check_texts(texts, at, text, path)
    return Labelled(
        texts=texts,  # type: ignore[arg-type]
        labels=tuple(_strings(table[label], at, label, path)),
        slices=_slices(table[slice_name]) if slice_name else (None,) * len(at),
        rows=at,
        sha256=sha256_of_file(path),
    )


def _read_table(path: Path, as_strings: Sequence[str]) -> pa.Table:
    kind = path.suffix.lower()
    if not path.is_file():
        raise DataError("there is no such file", where=path)
    try:
        if kind == ".csv":
            return pa.csv.read_csv(
                path,
                read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types={name: pa.string() for name in as_strings}, strings_can_be_null=False
                ),
            )
        if kind == ".jsonl":
            return pa.json.read_json(path, read_options=pa.json.ReadOptions(block_size=BLOCK_BYTES))
        if kind == ".parquet":
            return pq.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, UnicodeDecodeError) as problem:
        raise DataError(f"not readable as {kind[1:]}: {problem}", where=path) from None
    raise DataError(f"{kind or 'a file without extension'} is not read", where=path, hint=", ".join(KINDS))


def _strings(column: pa.ChunkedArray, at: Sequence[int], name: str, path: Path) -> list[str | None]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_null(kind)
    ):
        row = at[0] if at else 0
        raise DataError(
            f"`{name}` holds {kind}; it must hold strings or integers", where=f"{path}, row {row}"
        )
    return [None if value is None or value == "" else str(value) for value in column.to_pylist()]


def _slices(column: pa.ChunkedArray) -> tuple[str | None, ...]:
    return tuple(
        ",".join(map(str, value)) if isinstance(value, list) else None if value in {None, ""} else str(value)
        for value in column.to_pylist()
    )


def _check_texts(texts: Sequence[str | None], at: Sequence[int], name: str, path: object) -> None:
    if not texts:
        raise DataError("there are no rows", where=path)
    for row, value in zip(at, texts, strict=True):
        if value is None or not value.strip():
            raise DataError(f"`{name}` is empty in row {row}", where=path)
