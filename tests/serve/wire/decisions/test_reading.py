"""From logits to what is answered: renormalised over what was offered, doubted without a certificate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import NotReady
from contract.probabilities import softmax
from serve.types.messages import ClassifyResult
from serve.wire.decisions.matching import Match
from serve.wire.decisions.reading import doubt, read_off

LABELS = ("a", "b", "c", "d")


def over(*rows: int) -> Match:
    """A match on these labels."""
    return Match("m", LABELS, np.array(rows), (), len(rows), False)


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4),
    st.permutations(range(4)),
    st.integers(2, 4),
    st.floats(0.1, 5),
)
def test_a_part_of_the_labels_has_their_probabilities_renormalised(
    logits: list[float], order: list[int], offered: int, temperature: float
) -> None:
    """By hand: the probabilities of all, those offered divided by their sum, in the order of the question."""
    rows = order[:offered]
    array = np.array(logits, dtype=np.float32)
    found, chosen = read_off(over(*rows), LABELS, array, temperature, "choice")
    every = softmax(array[None], temperature)[0][rows]
    if every.sum() > 1e-200:
        assert found == pytest.approx((every / every.sum()).tolist(), abs=1e-9)
    assert sum(found) == pytest.approx(1)
    assert found[chosen] == max(found)


def test_what_is_as_good_as_impossible_is_still_told_apart() -> None:
    """Where every probability offered is 0 in doubles, their logits say which is the larger."""
    logits = np.array([0, -1000, -1001, -5000], dtype=np.float32)
    found, chosen = read_off(over(2, 1), LABELS, logits, 1.0, "choice")
    assert found == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])
    assert chosen == 1


def test_a_predicate_has_the_probability_of_its_yes_among_all() -> None:
    """And below a half the no is the more probable."""
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32))
    found, chosen = read_off(over(3), LABELS, logits, 1.0, "predicate")
    assert found == pytest.approx([0.4])
    assert chosen == 1


def test_a_family_that_changed_meanwhile_is_read_by_its_labels() -> None:
    """The same labels in another order are found again; labels that are gone are said."""
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32))
    assert read_off(over(0, 3), ("d", "c", "b", "a"), logits, 1.0, "choice")[0] == pytest.approx([0.2, 0.8])
    with pytest.raises(NotReady, match="changed"):
        read_off(over(0, 3), ("a", "b", "c", "e"), logits, 1.0, "choice")


@pytest.mark.parametrize(
    ("changes", "rows", "words"),
    [
        ({}, 4, None),
        ({"policy_version": None}, 4, "variant by name"),
        ({"certified": False}, 4, "no certificate"),
        ({"degraded": [True]}, 4, "cheaper stage"),
        ({}, 3, "3 of 4 labels"),
    ],
)
def test_a_certificate_is_about_all_labels_by_the_policy_as_it_is(
    changes: dict[str, Any], rows: int, words: str | None
) -> None:
    """What departs from that is named."""
    whole: dict[str, Any] = {
        "model": "m", "labels": LABELS, "predicted": [0], "confidence": [1.0], "variant": ["v"],
        "escalated": [False], "degraded": [False], "logits": np.zeros((1, 4), np.float32),
        "temperatures": [1.0], "policy_version": "p", "certified": True,
    }  # fmt: skip
    found = doubt(over(*range(rows)), ClassifyResult(**whole | changes))
    assert (found is None) if words is None else (words in str(found))
    if words is None:
        unsure = replace(over(*range(rows)), meant=False)
        assert "labels alone" in str(doubt(unsure, ClassifyResult(**whole)))


@pytest.mark.parametrize(
    ("predicted", "says_yes", "sure"), [(2, False, False), (2, True, True), (1, False, True)]
)
def test_a_predicate_is_certified_where_it_says_what_the_policy_answers(
    predicted: int, says_yes: bool, sure: bool
) -> None:
    """The yes may be the most probable of four labels and below a half: then the no is not certified."""
    result = ClassifyResult(
        model="m", labels=LABELS, predicted=[predicted], confidence=[0.45], variant=["v"], escalated=[False],
        degraded=[False], logits=np.zeros((1, 4), np.float32), temperatures=[1.0], policy_version="p",
        certified=True,
    )  # fmt: skip
    yes = Match("m", LABELS, np.array([2]), (), len(LABELS), False)
    found = doubt(yes, result, says_yes)
    assert (found is None) if sure else ("most probable" in str(found))
