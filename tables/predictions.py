"""Reading predictions tables: what pandas, polars, Spark and Arrow write, and everyday text files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq
from pyarrow import feather

from contract.errors import PredictionsError
from contract.files import sha256_of_bytes, sha256_of_file
from contract.predictions import LabelValue, Predictions, VariantPredictions
from tables.columns import coded, label_set_of, labels_of, predictions_of, slices_of, split_of
from tables.scores import check_argmax, check_confidence, confidence_of, logits_of

PAGE = "docs/predictions.md"


def read_predictions(path: Path, *, labels: Sequence[LabelValue] | None = None) -> Predictions:
    """Read and check a predictions table.

    Args:
        path: Parquet (a file, or a folder of part files as Spark writes them), CSV, TSV, JSON lines or Arrow,
            by its ending; with `label`, optional `split` and `slice`, and `V/prediction`, ... per variant.
        labels: the label set; by default the one stored in the file, else the labels that occur.

    Raises:
        PredictionsError: naming file, column, rows and rule.
    """
    if not path.exists():
        raise PredictionsError("there is no such file", where=path)
    kind, read = _reader(path)
    try:
        table = read(path)
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, OSError, ValueError) as problem:
        raise PredictionsError(
            f"not a readable {kind}: {problem}",
            where=path,
            hint="write it as Parquet, for example with pandas: frame.to_parquet(path)",
        ) from None
    predictions = from_table(table, where=path, labels=labels)
    return replace(predictions, sha256=_hash(path))


def _reader(path: Path) -> tuple[str, Callable[[Path], pa.Table]]:
    if path.is_dir():
        return "folder of Parquet files", _read_folder
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv", ".txt")):
        return "CSV file", _read_text
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return "file of JSON lines", pjson.read_json
    if name.endswith((".arrow", ".feather", ".ipc")):
        return "Arrow file", lambda file: feather.read_table(file, memory_map=False)
    return "Parquet file", pq.read_table


def _read_folder(path: Path) -> pa.Table:
    if not _parts(path):
        raise ValueError("it holds no file that ends in .parquet")
    return pq.read_table(path, ignore_prefixes=["_", "."])


def _read_text(path: Path) -> pa.Table:
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(65_536).split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
    separator = max(",\t;|", key=head.count)
    return pcsv.read_csv(
        path,
        parse_options=pcsv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pcsv.ConvertOptions(
            column_types={"label": pa.string(), "split": pa.string(), "slice": pa.string()},
            null_values=["", "NaN", "nan", "NA", "null"],
            timestamp_parsers=[],
        ),
    )


def _parts(folder: Path) -> list[Path]:
    return sorted(
        part
        for part in folder.rglob("*")
        if part.suffix in {".parquet", ".parq", ".pq"}
        and not any(name.startswith(("_", ".")) for name in part.relative_to(folder).parts)
    )


def _hash(path: Path) -> str:
    if path.is_dir():
        return sha256_of_bytes("\n".join(sha256_of_file(part) for part in _parts(path)).encode())
    return sha256_of_file(path)


def from_table(
    table: pa.Table, *, where: object = "predictions", labels: Sequence[LabelValue] | None = None
) -> Predictions:
    """Return checked predictions from an Arrow table. Raises PredictionsError."""
    cleaned = [name.strip().removeprefix("\ufeff") for name in table.column_names]
    table = table.rename_columns(cleaned).replace_schema_metadata(table.schema.metadata)
    names = table.column_names
    variants = _variants(names, where)
    if table.num_rows == 0:
        raise PredictionsError("the table has no rows", where=where)
    label_column = coded(table["label"], "label", where)
    answers = {name: coded(table[f"{name}/prediction"], f"{name}/prediction", where) for name in variants}
    label_set = label_set_of(table, label_column, list(answers.values()), labels, where)
    label = labels_of(label_column, label_set, where)
    notes: list[str] = []
    found: dict[str, VariantPredictions] = {}
    for name in variants:
        prediction, said = predictions_of(answers[name], label_set, name, where)
        notes += said
        unanswered = answers[name].codes < 0
        confidence = confidence_of(table, name, unanswered, where)
        if unanswered.any() and f"{name}/logits" in names:
            raise PredictionsError(
                f"`{name}/prediction` is null in {int(unanswered.sum())} rows, and there are logits: a row "
                "without an answer has none",
                where=where,
                hint=f"drop these rows, or the column `{name}/logits`",
            )
        logits, said, precision = logits_of(table, name, label_set, where)
        notes += said
        if logits is not None:
            check_argmax(prediction, logits, label_set, name, precision, where)
        check_confidence(prediction, confidence, logits, label_set, name, where)
        found[name] = VariantPredictions(prediction, confidence, logits)
    return Predictions(
        labels=tuple(label_set),
        label=label,
        variants=found,
        split=split_of(table, where),
        slices=slices_of(table, where),
        notes=tuple(notes),
    )


def _variants(names: list[str], where: object) -> list[str]:
    """Return the variants that the columns name, in their order."""
    for name in names:
        if names.count(name) > 1:
            raise PredictionsError(f"the column {name!r} occurs twice", where=where)
    listed = ", ".join(names[:20])
    variants = [name.removesuffix("/prediction") for name in names if name.endswith("/prediction")]
    if not variants:
        near = next((n for n in names if re.fullmatch(r".+[_.\-: ]pred(iction|s|icted)?", n)), None)
        raise PredictionsError(
            "there is no `V/prediction` column for any variant V",
            where=where,
            hint=f"columns: {listed}"
            + (f"; rename `{near}` to `{re.split('[_.: -]pred', near)[0]}/prediction`" if near else "")
            + f"; the format: {PAGE}",
        )
    if "label" not in names:
        raise PredictionsError(
            "there is no `label` column",
            where=where,
            hint=f"columns: {listed}; a column of nulls where no row has a label; the format: {PAGE}",
        )
    for name in names:
        variant, slash, part = name.rpartition("/")
        if slash and part in {"confidence", "logits"} and variant not in variants:
            raise PredictionsError(f"`{name}` has no `{variant}/prediction` beside it", where=where)
    return variants
