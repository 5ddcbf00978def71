"""Tuning and replay together: what tune says of a policy is what simulate finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from contract.costs import Cost
from contract.policy import parse_policy
from contract.predictions import Predictions
from router.decide.cascade import Answer, Escalate, compile_policy
from router.decide.simulate import simulate
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune

World = Callable[..., Predictions]


@pytest.mark.parametrize(
    "score", ["max_probability", "margin", "entropy", "per_class", "deferral", "agreement"]
)
def test_what_tune_expects_is_what_simulate_finds(world: World, costs: dict[str, Cost], score: str) -> None:
    """On the rows an uncertified policy was tuned on, replay gives the expected figures, for every score."""
    predictions = world(3000, logits=True)
    settings = TuneSettings(certified=False, score=score, per_class="never")
    result = tune(predictions, costs, Targets(max_accuracy_drop=0.02), settings)
    policy = parse_policy(result.policy.dump())
    figures = simulate(predictions, costs, policy).figures
    assert result.policy.status == "uncertified"
    assert figures["accuracy_drop"] == pytest.approx(result.policy.expected.accuracy_drop)
    assert figures["usd_per_1k"] == pytest.approx(result.policy.expected.usd_per_1k)
    assert figures["escalation_rate"] == pytest.approx(result.policy.expected.escalation_rate)
    assert figures["usd_per_1k"] < costs["large"].usd_per_1k


def test_one_request_and_a_batch_meet_the_same_decision(world: World, costs: dict[str, Cost]) -> None:
    """The scalar decision and the vectorised one agree on every row of a policy with rules per class."""
    predictions = world(4000, skills=(0.6, 0.8, 0.9))
    result = tune(predictions, costs, Targets(max_accuracy_drop=0.03), TuneSettings(certified=False))
    compiled = compile_policy(result.policy, predictions.labels)
    rng = np.random.default_rng(3)
    classes = rng.integers(-2, 4, 500)
    scores = rng.random(500)
    for stage in range(len(compiled.stages)):
        batch = compiled.decide_batch(stage, classes, scores)
        for predicted, score, verdict in zip(classes.tolist(), scores.tolist(), batch.tolist(), strict=True):
            single = compiled.decide(stage, predicted, score)
            assert single == (Answer() if verdict == -1 else Escalate(verdict))
