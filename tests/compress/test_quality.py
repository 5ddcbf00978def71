"""Quality figures against hand-computed ones."""

from __future__ import annotations

import numpy as np
import pytest

from compress.data import Dataset
from compress.quality import quality_of

DATA = Dataset(
    labels=("a", "b"),
    texts=tuple("abcdef"),
    label=("a", "a", "a", "b", "b", "b"),
    split=("test",) * 6,
    slices=(("first",), ("first",), (), (), (), ("last",)),
)


def test_figures_by_hand() -> None:
    """Accuracy, macro-F1, recall, precision, slices and the paired delta of six rows."""
    predicted, teacher = np.array([0, 1, 0, 1, 1, 0]), np.array([0, 0, 0, 1, 1, 0])
    quality = quality_of(DATA, predicted, teacher, seed=0)
    assert quality.accuracy == pytest.approx(4 / 6)
    assert quality.accuracy_delta == pytest.approx(-1 / 6)
    assert quality.macro_f1 == pytest.approx(2 / 3)
    assert quality.per_class["a"] == {"recall": 2 / 3, "precision": 2 / 3, "n": 3}
    assert quality.accuracy_per_slice == {"first": 0.5, "last": 0.0}
    low, high = quality.accuracy_interval
    assert low < 4 / 6 < high
    assert quality.accuracy_delta_interval is not None
    assert quality.accuracy_delta_interval[0] <= -1 / 6 <= quality.accuracy_delta_interval[1]


def test_answers_that_never_differ_leave_the_delta_uncertain() -> None:
    """A variant that answers six texts as its teacher does has a delta of 0 with an interval around it."""
    quality = quality_of(DATA, DATA.targets, DATA.targets, seed=0)
    assert quality.accuracy_delta == 0
    assert quality.accuracy_delta_interval is not None
    assert quality.accuracy_delta_interval[0] < 0 < quality.accuracy_delta_interval[1]


def test_the_teacher_has_no_delta() -> None:
    """Against itself there is nothing to compare."""
    quality = quality_of(DATA, DATA.targets, None, seed=0)
    assert quality.accuracy == 1.0
    assert quality.accuracy_delta is None
