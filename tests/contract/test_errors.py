"""Errors: they say what, where and what next, and cross process borders unharmed."""

from __future__ import annotations

import pickle

import pytest

from contract import errors

SAMPLES = [
    errors.DataError("the text is empty", where="a.csv:7", hint="remove the row"),
    errors.EnvironmentProblem("no CUDA provider", hint="pip install sluicegate[gpu]"),
    errors.UnknownModel("x", ("cascade", "teacher")),
    errors.Overloaded("queue full", retry_after_s=2.5),
    errors.StageFailed("stage failed"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
def test_errors_pickle_to_equal_ones(error: errors.SluiceError) -> None:
    """An error that crosses a process keeps its type, text and attributes."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_input_errors_name_place_rule_and_next_step() -> None:
    """The text of an input error holds the file, the rule and what to try."""
    text = str(SAMPLES[0])
    assert "a.csv:7" in text
    assert "empty" in text
    assert "remove the row" in text
