"""Tuning for a last stage that is a person: as many answers as the bound on their errors lets out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from contract.costs import Cost
from contract.errors import InputError, PolicyError, PredictionsError
from contract.policy import ABSTAIN, Policy, Stage, parse_policy
from contract.predictions import Predictions
from router.decide.cascade import compile_policy
from router.decide.simulate import replay, simulate
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune
from tests.router.conftest import make_world
from tests.support.simulations import most

World = Callable[..., Predictions]
Costs = dict[str, Cost]
ASKED = Targets(max_answered_error=0.1)
SETTINGS = TuneSettings(abstain=True)


def answered(policy: Policy, predictions: Predictions) -> tuple[float, float]:
    """Return the share of rows that are answered, and the share of these that is wrong."""
    rows = replay(compile_policy(policy, predictions.labels), predictions)
    given = ~rows.abstained
    wrong = rows.answer != predictions.label
    return float(given.mean()), float(wrong[given].mean()) if given.any() else 0.0


def only(predictions: Predictions, *names: str) -> Predictions:
    """The same rows, seen by these variants alone."""
    return replace(predictions, variants={name: predictions.variants[name] for name in names})


def test_one_cheap_variant_is_enough(costs: Costs) -> None:
    """There is no larger model: it answers what it is sure of, the rest is left to a person."""
    found = tune(only(make_world(4000), "cheap"), costs, ASKED, SETTINGS)
    policy = found.policy
    assert (policy.status, policy.abstains, policy.reference) == ("certified", True, "cheap")
    assert policy.stages[-1] == Stage(variant=ABSTAIN)
    share, wrong = answered(policy, make_world(20_000, seed=9))
    assert share > 0.2
    assert wrong <= 0.1
    assert policy.expected.abstention_rate == pytest.approx(1 - share, abs=0.05)
    assert policy.expected.accuracy is not None
    assert policy.expected.accuracy >= 0.88
    assert any("left to a person" in line for line in found.explanation)
    assert parse_policy(policy.dump()) == policy


def test_the_bound_is_seldom_broken(costs: Costs, draws: int) -> None:
    """On many rows drawn alike more of what is answered is wrong in at most a share delta of the draws."""
    broken = 0
    for draw in range(draws):
        seen = only(make_world(1500, seed=draw), "cheap", "middle")
        policy = tune(seen, costs, ASKED, replace(SETTINGS, seed=draw)).policy
        broken += answered(policy, make_world(20_000, seed=draw + 10_000))[1] > 0.1
    assert broken <= most(draws, 0.1)


def test_it_answers_as_much_as_it_may(world: World, costs: Costs) -> None:
    """A larger model behind the cheap one leaves less to a person, whatever that model costs."""
    predictions = world(4000)
    alone = tune(only(predictions, "cheap"), costs, ASKED, SETTINGS).policy
    both = tune(predictions, costs, ASKED, SETTINGS).policy
    assert answered(both, predictions)[0] > answered(alone, predictions)[0]


def test_a_price_of_a_person_is_weighed(world: World, costs: Costs) -> None:
    """Where a person is cheap, the larger model is not asked for so little; both prices are in the figure."""
    dear = tune(world(4000), costs, ASKED, replace(SETTINGS, abstain_usd_per_1k=500.0)).policy
    cheap = tune(world(4000), costs, ASKED, replace(SETTINGS, abstain_usd_per_1k=3.0)).policy
    assert "large" in dear.variants
    assert "large" not in cheap.variants
    left = cheap.expected.abstention_rate
    assert left is not None
    assert cheap.expected.usd_per_1k == pytest.approx(1.0 + 3.0 * left, abs=0.5)


def test_without_labels_the_reference_judges_and_answers_nothing(world: World, costs: Costs) -> None:
    """Nothing can be held against its own answers."""
    predictions = world(4000, skills=(0.7, 0.85, 1.0))
    blind = replace(predictions, label=np.full(len(predictions), -1))
    policy = tune(blind, costs, ASKED, SETTINGS).policy
    assert (policy.status, policy.reference) == ("certified", "large")
    assert "large" not in policy.variants
    assert policy.certificate is not None
    assert "disagreement" in policy.certificate.targets[0].method
    with pytest.raises(PredictionsError, match="its own answers"):
        tune(only(blind, "cheap"), costs, ASKED, SETTINGS)


def test_where_nothing_is_safe_nobody_answers(world: World, costs: Costs) -> None:
    """The policy is still one that can be served."""
    found = tune(only(world(60), "cheap"), costs, Targets(max_answered_error=0.001), SETTINGS)
    policy = found.policy
    assert policy.status == "no_safe_threshold"
    assert answered(policy, world(200))[0] == 0.0
    assert any("nobody answers" in line for line in found.explanation)
    asked = replace(SETTINGS, allow_always_escalate=True)
    assert tune(only(world(60), "cheap"), costs, Targets(max_answered_error=0.001), asked).met


def test_simulate_counts_neither_right_nor_wrong_what_nobody_answers(world: World, costs: Costs) -> None:
    """Accuracy is that of the answers given; the share that is left is a figure of its own."""
    predictions = world(3000)
    policy = tune(only(predictions, "cheap"), costs, ASKED, SETTINGS).policy
    found = simulate(predictions, costs, policy)
    share, wrong = answered(policy, predictions)
    assert found.figures["abstention_rate"] == pytest.approx(1 - share)
    assert found.figures["accuracy"] == pytest.approx(1 - wrong)
    assert found.figures["stage_share"][ABSTAIN] == pytest.approx(1 - share)
    assert found.figures["usd_per_1k"] == pytest.approx(1.0)
    left = next(answer for answer in found.answers() if answer["variant"] == ABSTAIN)
    assert (left["label"], left["escalated"]) == (None, True)


@pytest.mark.parametrize(
    ("targets", "settings", "said"),
    [
        (Targets(max_accuracy_drop=0.01), SETTINGS, "--abstain needs a bound"),
        (Targets(max_answered_error=0.1, max_accuracy_drop=0.01), SETTINGS, "among what is answered"),
        (Targets(max_answered_error=0.1, max_escalation_rate=0.1), SETTINGS, "among what is answered"),
        (Targets(max_answered_error=0.1, max_usd_per_1k=1.0), SETTINGS, "price of a person"),
        (ASKED, replace(SETTINGS, score="deferral"), "any score but deferral"),
        (ASKED, TuneSettings(abstain_usd_per_1k=1.0), "price of abstentions"),
    ],
)
def test_what_says_nothing_of_abstentions_is_refused(
    world: World, costs: Costs, targets: Targets, settings: TuneSettings, said: str
) -> None:
    """With the reason, and what to ask for."""
    with pytest.raises(InputError, match=said):
        tune(world(400), costs, targets, settings)


@pytest.mark.parametrize(
    "stages",
    [
        [{"variant": "abstain"}],
        [{"variant": "abstain", "threshold": 0.5}, {"variant": "a"}],
        [{"variant": "a", "threshold": 0.5}, {"variant": "abstain", "temperature": 2.0}],
    ],
)
def test_a_person_is_the_last_of_several_stages(stages: list[dict[str, object]]) -> None:
    """Nobody to be left by, nobody before others, and nothing to be scored."""
    with pytest.raises(PolicyError, match="abstain"):
        parse_policy({"status": "uncertified", "reference": "a", "stages": stages})
