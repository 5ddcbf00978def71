"""The columns of a predictions table that hold numbers: confidences and logits, and what contradicts them.

Every function raises PredictionsError, which names column, rows and rule, and the file that `where` is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy
from numpy.typing import NDArray

from contract.errors import PredictionsError
from contract.predictions import LabelValue
from tables.columns import flat, is_list, is_text, names_text, rows_text
from tables.numbers import numbers_in

ROUNDING = 1e-6
SUM_ROUNDING = 1e-3
LEAST_PROBABILITY = 1e-12
ENOUGH_ROWS = 20
ENOUGH_FOR_RANKS = 100


def confidence_of(
    table: pa.Table, variant: str, unanswered: NDArray[np.bool_], where: object
) -> NDArray[np.float64]:
    """Return [N] confidences of a variant, 0 where it gave no answer.

    Rounding beyond 0 or 1 by at most 1e-6 is clipped.
    """
    column = f"{variant}/confidence"
    if column not in table.column_names:
        raise PredictionsError(
            f"there is no `{column}` column",
            where=where,
            hint="the probability of the predicted class, 0 to 1; 1 in every row of a model that has none",
        )
    array = flat(table[column])
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    try:
        if pa.types.is_boolean(array.type):
            raise pa.ArrowInvalid("truth values")
        filled = pc.fill_null(array.cast(pa.float64()), math.nan)
        values: NDArray[np.float64] = filled.to_numpy(zero_copy_only=False).copy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise PredictionsError(f"`{column}` must hold numbers, not {array.type}", where=where) from None
    values[unanswered] = 0.0
    missing = np.isnan(values)
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise PredictionsError(
            f"`{column}` in row {row} is NaN or null, though there is an answer: so in {rows_text(missing)}",
            where=where,
            hint="where a variant gave no answer its prediction is null too",
        )
    bad = ~((values >= -ROUNDING) & (values <= 1 + ROUNDING))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise PredictionsError(
            f"`{column}` in row {row} is {values[row]:g}; confidences lie in [0, 1]: outside in "
            f"{rows_text(bad)}",
            where=where,
            hint=_scale(values),
        )
    return np.asarray(np.clip(values, 0.0, 1.0))


def _scale(values: NDArray[np.float64]) -> str | None:
    if values.min() >= 0 and values.max() <= 100 + 1e-4 and (values > 1 + ROUNDING).mean() > 0.5:
        return f"these are percentages (up to {values.max():g}): divide them by 100"
    if values.max() <= ROUNDING:
        return "these are logarithms of probabilities: take exp() of them"
    if values.min() >= 0 and (values > 1 + ROUNDING).mean() > 0.5:
        return "these are no probabilities; of a margin or a logit, take softmax or write `V/logits`"
    return None


def logits_of(
    table: pa.Table, variant: str, labels: Sequence[LabelValue], where: object
) -> tuple[NDArray[np.float32] | None, list[str], float]:
    """Return the logits [N, C] of a variant where the table has them, and what was done to read them.

    The last value is how far apart two numbers of the column may be by rounding alone, as a share of the
    larger. Rows of probabilities (each from 0 to 1, summing to 1) become their logarithms, which are their
    logits.
    """
    column = f"{variant}/logits"
    if column not in table.column_names:
        return None, [], 0.0
    array = flat(table[column])
    kind, classes = array.type, len(labels)
    if is_text(kind):
        array, kind = _parsed(array, column, where), pa.list_(pa.float64())
    lists = is_list(kind)
    inner = kind.value_type if lists else kind
    if not lists or not (
        pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_decimal(inner)
    ):
        raise PredictionsError(f"`{column}` must hold lists of numbers, not {kind}", where=where)
    lengths = pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False)
    wrong = np.asarray(lengths != classes)
    if wrong.any():
        found = sorted(set(lengths.tolist()))
        sizes = ", ".join("null" if n < 0 else str(n) for n in found[:5])
        raise PredictionsError(
            f"`{column}` must hold {classes} numbers in every row, one for each of the labels "
            f"{names_text(list(labels))}; it has {sizes} in {rows_text(wrong)}",
            where=where,
            hint="name all classes of the model, in the order of its outputs, with --labels"
            if len(found) == 1 and found[0] > 0
            else None,
        )
    exact = array.flatten()
    precision = 2.0**-10 if pa.types.is_float16(inner) else 2.0**-22
    if pa.types.is_decimal(inner):
        exact = exact.cast(pa.float64())
    with np.errstate(over="ignore"):  # too large for float32 is refused as not finite
        logits: NDArray[np.float32] = (
            exact.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(array), classes)
        )
    bad = np.asarray(~np.isfinite(logits).all(axis=1))
    if bad.any():
        raise PredictionsError(
            f"`{column}` must hold {classes} finite numbers in every row; not so in {rows_text(bad)}",
            where=where,
        )
    sums = logits.sum(axis=1, dtype=np.float64)
    if classes > 1 and logits.min() >= 0 and (np.abs(sums - 1) <= SUM_ROUNDING).all():
        logs = np.log(np.maximum(logits, LEAST_PROBABILITY)).astype(np.float32)
        return (
            logs,
            [f"`{column}` holds probabilities; their logarithms are the logits"],
            max(precision, 1e-5),
        )
    return logits, [], precision


def _parsed(array: pa.Array, column: str, where: object) -> pa.Array:
    """Return the lists that text such as "[0.1, 2.5]" or "[0.1 2.5]" writes."""
    rows: list[list[float] | None] = []
    for row, text in enumerate(array.to_pylist()):
        try:
            rows.append(None if text is None else numbers_in(text))
        except ValueError:
            raise PredictionsError(
                f"`{column}` must hold lists of numbers; row {row} is {text[:40]!r}", where=where
            ) from None
    return pa.array(rows, type=pa.list_(pa.float64()))


def check_argmax(
    prediction: NDArray[np.int64],
    logits: NDArray[np.float32],
    labels: Sequence[LabelValue],
    variant: str,
    precision: float,
    where: object,
) -> None:
    """Refuse logits whose largest is not that of the prediction, ties and rounding apart."""
    known = prediction >= 0
    rows = np.flatnonzero(known)
    top = logits.max(axis=1)
    own = logits[rows, prediction[rows]]
    differs = np.zeros(len(prediction), dtype=bool)
    differs[rows] = own < top[rows] - precision * np.maximum(1.0, np.abs(top[rows]))
    if not differs.any():
        return
    share = differs.sum() / max(1, len(rows))
    raise PredictionsError(
        f"the largest of `{variant}/logits` is not that of `{variant}/prediction` in {share:.1%} of the "
        f"rows: {rows_text(differs)}; the columns of logits are taken to be {names_text(list(labels))}",
        where=where,
        hint=_order(prediction[rows], logits[rows], labels)
        or "name the classes in the order of the model's outputs with --labels, or leave the logits out",
    )


def _order(
    prediction: NDArray[np.int64], logits: NDArray[np.float32], labels: Sequence[LabelValue]
) -> str | None:
    """Return the order of the columns under which logits and predictions agree, where there is one."""
    classes = len(labels)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (logits.argmax(axis=1), prediction), 1)
    best = counts.argmax(axis=1)
    seen = counts.sum(axis=1) > 0
    if len(set(best[seen].tolist())) < seen.sum() or counts.max(axis=1).sum() < 0.99 * len(prediction):
        return None
    order = [str(labels[best[j]]) if seen[j] else "?" for j in range(classes)]
    return f"the columns seem to be in the order {','.join(order)}: name it with --labels"


def check_confidence(
    prediction: NDArray[np.int64],
    confidence: NDArray[np.float64],
    logits: NDArray[np.float32] | None,
    labels: Sequence[LabelValue],
    variant: str,
    where: object,
) -> None:
    """Refuse a confidence that cannot be that of the prediction.

    With logits: one under 1 / classes, which softmax gives its largest at no temperature, and one that falls
    where the largest probability rises (rank correlation under -0.5 over 100 rows or more). Without: of two
    classes, one that is under 1/2 for one class and over it for the other, which is the probability of a
    fixed class.
    """
    column, classes, answered = f"{variant}/confidence", len(labels), prediction >= 0
    if logits is not None:
        low = answered & (confidence < 1.0 / classes - 1e-4)
        if low.any():
            raise PredictionsError(
                f"`{column}` is under 1/{classes}, which no probability of the predicted one of {classes} "
                f"classes can be, in {rows_text(low)}",
                where=where,
                hint=f"write the largest probability, or leave `{variant}/logits` out if it is another score",
            )
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        largest = 1.0 / np.exp(shifted).sum(axis=1)
        if len(confidence) >= ENOUGH_FOR_RANKS and np.ptp(confidence) > 0 and np.ptp(largest) > 0:
            correlation = float(scipy.stats.spearmanr(confidence, largest).statistic)
            if correlation < -0.5:
                raise PredictionsError(
                    f"`{column}` falls where the largest probability of the logits rises (rank correlation "
                    f"{correlation:.2f}): it tells doubt, not confidence",
                    where=where,
                    hint="write 1 less it, or the largest probability",
                )
    if classes != 2 or answered.sum() < ENOUGH_ROWS:
        return
    below = confidence < 0.5
    for index in (0, 1):
        mine, other = answered & (prediction == index), answered & (prediction == 1 - index)
        if min(mine.sum(), other.sum()) >= 5 and below[mine].mean() > 0.99 and below[other].mean() < 0.01:
            raise PredictionsError(
                f"`{column}` is under 1/2 in {int(below[mine].sum())} of {int(mine.sum())} rows that predict "
                f"{labels[index]!r}, and in {int(below[other].sum())} of {int(other.sum())} others: it is "
                f"the probability of {labels[1 - index]!r}, not that of the prediction",
                where=where,
                hint=f"write 1 - p where the prediction is {labels[index]!r}",
            )
