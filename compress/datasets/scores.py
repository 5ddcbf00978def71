"""The scores of one row of a teacher's answers: logits or probabilities, as cells hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.probabilities import softmax
from tables.labelled import ABSENT
from tables.labels import shown
from tables.numbers import is_missing, number_in, numbers_in

# Probabilities rounded to two decimals sum to 1 within this; one of 0 has no finite logarithm.
SUM_TOLERANCE = 0.01
LEAST = 1e-6
# Logits that sum to 1 within this, row after row, are none.
SURE_SUM = 1e-3
_EMPTY = "leave the cells of a text empty where the teacher has no answer"
_PERCENTAGES = "these are percentages: divide them by 100"
_LIST = "a list is written as [0.1, 0.9]"
_POINT = "write decimals with a point: 0.9"


class ScoreProblem(ValueError):
    """A rule that a row's scores break, with the next step."""

    def __init__(self, rule: str, hint: str = _EMPTY) -> None:
        super().__init__(rule)
        self.hint = hint


def list_in(value: Any, column: str) -> Sequence[Any] | None:
    """Return the numbers of one cell: a list, or one written as text; None where it is empty."""
    if is_empty(value):
        return None
    if isinstance(value, str):
        value = _written_list(value, column)
    if not isinstance(value, list | tuple | np.ndarray):
        raise ScoreProblem(f"`{column}` is {shown(value)}, no list of numbers", _LIST)
    return list(value)


def _written_list(written: str, column: str) -> Any:
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        pass
    try:
        found = numbers_in(written)
    except ValueError:
        found = []
    if not found:
        hint = _POINT if "," in written and ";" in written else _LIST
        raise ScoreProblem(f"`{column}` is {shown(written)}, no list of numbers", hint)
    return found


def is_empty(value: Any) -> bool:
    """Return whether a cell says that there is no number."""
    if isinstance(value, str):
        return is_missing(value)
    return value is None or value is ABSENT or (isinstance(value, float) and math.isnan(value))


def number_of(value: Any, column: str) -> float:
    """Return the number of a cell. Raises ScoreProblem."""
    if is_empty(value):
        raise ScoreProblem(f"`{column}` is empty, other scores of the row are not")
    try:
        number = number_in(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        hint = _PERCENTAGES if str(value).strip().endswith("%") else _POINT if "," in str(value) else _EMPTY
        raise ScoreProblem(f"`{column}` is {shown(value)}, no number", hint) from None
    if isinstance(value, bool) or not math.isfinite(number):
        hint = "a logit of -inf is a probability of 0: write -30" if number == -math.inf else _EMPTY
        raise ScoreProblem(f"`{column}` is {shown(value)}, no finite number", hint)
    return number


def are_shares(values: NDArray[np.float64]) -> bool:
    """Return whether the numbers of a row [C] are probabilities: none below 0, and they sum to 1."""
    return bool(values.min() >= 0 and abs(values.sum() - 1) <= SURE_SUM)


def of_logits(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of a row's logits [C]."""
    shares: NDArray[np.float64] = softmax(logits[np.newaxis])[0]
    return shares


def of_probabilities(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a row's probabilities [C], none of them 0, which sum to 1. Raises ScoreProblem."""
    if values.min() < -LEAST or values.max() > 1 + LEAST:
        worst = values[np.abs(values - 0.5).argmax()]
        raise ScoreProblem(f"a probability lies between 0 and 1, not at {worst:g}", _named_wrong(values))
    if abs(values.sum() - 1) > SUM_TOLERANCE + 1e-9:
        raise ScoreProblem(
            f"the probabilities sum to {values.sum():.4g}, not to 1",
            "one label of several is answered here: the probabilities of all of them sum to 1",
        )
    kept = np.maximum(values, LEAST)
    shares: NDArray[np.float64] = kept / kept.sum()
    return shares


def _named_wrong(values: NDArray[np.float64]) -> str:
    if values.min() >= 0 and abs(values.sum() - 100) <= 100 * SUM_TOLERANCE:
        return _PERCENTAGES
    return "if these are logits, or logarithms of probabilities, name them `logits`"
