"""One text is scored and decided as it would be in a batch, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from contract.policy import Policy, Stage
from contract.probabilities import softmax
from router.decide.cascade import ANSWER, Answer, compile_policy
from router.decide.scores import score_one

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 160))
LOGITS = SHAPES.flatmap(
    lambda shape: arrays(
        np.float32,
        shape,
        elements=st.one_of(
            st.floats(-60, 60, width=32), st.sampled_from([0.0, 1.0, -1.0, 1e-30, 3e38, -3e38, 2.5])
        ),
    )
)


@settings(max_examples=300, deadline=None)
@given(LOGITS, st.floats(0.05, 20))
def test_class_and_confidence_of_one_text_are_those_of_a_batch(
    logits: NDArray[np.float32], temperature: float
) -> None:
    """Every row alone has the class and the confidence, bit for bit, that softmax of all rows gives it."""
    probabilities = softmax(logits, temperature)
    for row, wanted in zip(logits, probabilities, strict=True):
        found = score_one(row, temperature)
        assert found.predicted == int(wanted.argmax())
        assert found.confidence == float(wanted.max())


@pytest.mark.parametrize("score", ["max_probability", "margin", "entropy", "agreement"])
@settings(max_examples=100, deadline=None)
@given(logits=LOGITS, temperature=st.floats(0.05, 20), at=st.floats(0, 1))
def test_the_verdict_on_one_text_is_that_in_a_batch(
    score: str, logits: NDArray[np.float32], temperature: float, at: float
) -> None:
    """Score and verdict of a text alone are those that it has among others, at any threshold."""
    threshold = at
    policy = Policy(
        status="uncertified",
        reference="b",
        stages=(
            Stage(variant="a", threshold=threshold, score=score, temperature=temperature),
            Stage(variant="b"),
        ),
    ).sealed()
    compiled = compile_policy(policy, [str(i) for i in range(logits.shape[1])])
    rules = compiled.stages[0]
    scored = rules.score_logits(logits)
    verdicts = compiled.decide_batch(0, scored.predicted, scored.score)
    for i, row in enumerate(logits):
        one = rules.score_one(row)
        assert (one.predicted, one.confidence, one.score) == (
            scored.predicted[i],
            scored.confidence[i],
            scored.score[i],
        )
        decided = compiled.decide(0, one.predicted, one.score)
        assert (ANSWER if isinstance(decided, Answer) else decided.next_index) == verdicts[i]
