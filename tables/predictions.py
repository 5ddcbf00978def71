"""Reading predictions tables: what pandas, polars, Spark and Arrow write, and everyday text files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pyarrow import dataset

from contract.errors import InputError, PredictionsError
from contract.files import sha256_of_file, sha256_of_json
from contract.predictions import LabelValue, Predictions, VariantPredictions
from tables.columnar import ENDINGS, PARQUET, columnar_table
from tables.columns import coded, label_set_of, labels_of, predictions_of, slices_of, split_of
from tables.content import COMPRESSED, kind_of
from tables.files import ELSEWHERE, packed
from tables.hub import with_class_names
from tables.paths import CHANGED, CHANGED_HINT, require_readable, state_of
from tables.scores import check_argmax, check_confidence, confidence_of, logits_of
from tables.text_tables import TEXT, text_table

PAGE = "docs/predictions.md"


def read_predictions(path: Path, *, labels: Sequence[LabelValue] | None = None) -> Predictions:
    """Read and check a predictions table.

    Args:
        path: Parquet (a file, or a folder of part files as Spark writes them), CSV, TSV, JSON or Arrow, by
            its ending; with `label`, optional `split` and `slice`, and `V/prediction`, ... per variant.
        labels: the label set; by default the one stored in the file, else the labels that occur.

    Raises:
        PredictionsError: naming file, column, rows and rule.
    """
    try:
        require_readable(path)
        before = state_of(path)
        table = _read_folder(path) if path.is_dir() else _read_file(path)
    except InputError as problem:
        raise PredictionsError(problem.rule, where=problem.where, hint=problem.hint) from None
    except (pa.ArrowException, OSError) as problem:
        raise PredictionsError(f"cannot be read: {problem}", where=path) from None
    predictions = from_table(table, where=path, labels=labels)
    digest = _hash(path)
    if state_of(path) != before:
        raise PredictionsError(CHANGED, where=path, hint=CHANGED_HINT)
    return replace(predictions, sha256=digest)


def _read_file(path: Path) -> pa.Table:
    if kind_of(path) in TEXT:
        return text_table(path)
    if kind_of(path) in ENDINGS and path.suffix.lower() in COMPRESSED:
        raise packed(path)
    if kind_of(path) in ELSEWHERE:
        raise PredictionsError(
            f"files of kind {path.suffix!r} are not read", where=path, hint=ELSEWHERE[kind_of(path)]
        )
    return columnar_table(path)


def _read_folder(path: Path) -> pa.Table:
    parts = _parts(path)
    if not parts:
        raise PredictionsError("the folder holds no file that ends in .parquet", where=path)
    found = dataset.dataset(
        [str(part) for part in parts],
        format="parquet",
        partitioning=dataset.HivePartitioning.discover(infer_dictionary=True),
        partition_base_dir=str(path),
    )
    table = found.to_table()
    table.validate(full=True)
    return table


def _parts(folder: Path) -> list[Path]:
    return sorted(
        part
        for part in folder.rglob("*")
        if part.suffix in PARQUET
        and part.is_file()
        and not any(name.startswith(("_", ".")) for name in part.relative_to(folder).parts)
    )


def _hash(path: Path) -> str:
    if path.is_dir():
        return sha256_of_json(
            {part.relative_to(path).as_posix(): sha256_of_file(part) for part in _parts(path)}
        )
    return sha256_of_file(path)


def from_table(
    table: pa.Table, *, where: object = "predictions", labels: Sequence[LabelValue] | None = None
) -> Predictions:
    """Return checked predictions from an Arrow table. Raises PredictionsError."""
    cleaned = [name.strip().removeprefix("\ufeff") for name in table.column_names]
    table = table.rename_columns(cleaned).replace_schema_metadata(table.schema.metadata)
    names = table.column_names
    variants = _variants(names, where)
    table, classes = with_class_names(table, where)
    if table.num_rows == 0:
        raise PredictionsError("the table has no rows", where=where)
    label_column = coded(table["label"], "label", where)
    answers = {name: coded(table[f"{name}/prediction"], f"{name}/prediction", where) for name in variants}
    label_set = label_set_of(table, label_column, list(answers.values()), labels or classes, where)
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
    if "" in variants:
        raise PredictionsError("the column '/prediction' names no variant before its slash", where=where)
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
