"""Quality figures against hand-computed ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.datasets.data import Dataset
from compress.measurement.quality import quality_of

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
    assert quality.macro_f1_delta == pytest.approx(2 / 3 - (6 / 7 + 4 / 5) / 2)
    assert quality.per_class["a"] == {
        "recall": 2 / 3, "precision": 2 / 3, "n": 3, "recall_delta": pytest.approx(-1 / 3)
    }  # fmt: skip
    assert quality.per_class["b"]["recall_delta"] == 0
    assert {name: found.accuracy for name, found in quality.per_slice.items()} == {"first": 0.5, "last": 0}
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


def test_a_class_without_rows_has_no_recall() -> None:
    """Nothing was there to be found, which is not the same as finding nothing."""
    predicted = np.array([2, 1, 0])
    data = Dataset(("a", "b", "c"), ("x", "y", "z"), ("a", "b", "a"), ("test",) * 3, ((),) * 3)
    found = quality_of(data, predicted, predicted, seed=0).per_class
    assert found["c"] == {"n": 0, "precision": 0.0}
    assert found["a"]["recall"] == 0.5


def test_a_slice_has_its_own_paired_delta_and_intervals() -> None:
    """Per slice: rows, accuracy and delta by hand, each inside its interval; no delta without a teacher."""
    predicted, teacher = np.array([0, 1, 0, 1, 1, 0]), np.array([0, 0, 0, 1, 1, 0])
    first = quality_of(DATA, predicted, teacher, seed=0).per_slice["first"]
    assert (first.n, first.accuracy, first.accuracy_delta) == (2, 0.5, -0.5)
    assert first.accuracy_interval is not None
    assert first.accuracy_interval[0] < 0.5 < first.accuracy_interval[1]
    assert first.accuracy_delta_interval is not None
    assert first.accuracy_delta_interval[0] < -0.5 < first.accuracy_delta_interval[1]
    alone = quality_of(DATA, predicted, None, seed=0).per_slice["first"]
    assert alone.accuracy_delta is None
    assert alone.accuracy_delta_interval is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=30, max_size=60))
def test_every_delta_is_a_difference_and_lies_in_its_interval(rows: list[tuple[int, int, int]]) -> None:
    """Deltas are what subtracting the two figures gives, and against itself a variant loses nothing."""
    labels = ("x", "y", "z")
    targets, predicted, teacher = (np.array(column) for column in zip(*rows, strict=True))
    data = Dataset(
        labels, ("",) * len(rows), tuple(labels[t] for t in targets), ("test",) * len(rows), ((),) * len(rows)
    )
    own, base = quality_of(data, predicted, teacher, seed=1), quality_of(data, teacher, None, seed=1)
    assert own.accuracy_delta == pytest.approx(own.accuracy - base.accuracy)
    assert own.macro_f1_delta == pytest.approx(own.macro_f1 - base.macro_f1)
    for label in (each for each in labels if own.per_class[each]["n"]):
        change = own.per_class[label]["recall"] - base.per_class[label]["recall"]
        assert own.per_class[label]["recall_delta"] == pytest.approx(change)
    assert own.accuracy_delta is not None
    assert own.accuracy_delta_interval is not None
    low, high = own.accuracy_delta_interval
    assert low - 1e-12 <= own.accuracy_delta <= high + 1e-12
    same = quality_of(data, teacher, teacher, seed=1)
    assert (same.accuracy_delta, same.macro_f1_delta, same.macro_f1_delta_interval) == (0, 0, (0, 0))
