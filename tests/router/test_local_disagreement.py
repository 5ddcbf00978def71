"""The target on local answers: what the reference did not say differs from it in a bounded share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.costs import Cost
from contract.errors import InputError
from contract.policy import Policy
from contract.predictions import Predictions
from router.decide.cascade import compile_policy
from router.decide.simulate import replay
from router.tune.pvalues import binomial_p_value
from router.tune.sample import fit_scores, make_sample
from router.tune.targets import Constraint, Targets
from router.tune.tune import TuneSettings, tune
from tests.router.conftest import make_world
from tests.support.simulations import most

World = Callable[..., Predictions]
Costs = dict[str, Cost]
SETTINGS = TuneSettings(reference="large")
SKILLS = (0.7, 0.85, 1.0)


def local_share(policy: Policy, predictions: Predictions) -> tuple[float, float]:
    """Return the share of rows that the reference does not answer, and the share of these that differ."""
    rows = replay(compile_policy(policy, predictions.labels), predictions)
    names = np.array([stage.variant for stage in policy.stages])
    local = names[rows.stage] != policy.reference
    differ = rows.answer != predictions.variants[policy.reference].prediction
    return float(local.mean()), float(differ[local].mean()) if local.any() else 0.0


def _world(n: int, seed: int) -> Predictions:
    return make_world(n, seed=seed, skills=SKILLS)


@pytest.mark.parametrize("epsilon", [0.1, 0.2])
def test_the_best_policy_on_the_rows_tuned_on_keeps_it(world: World, costs: Costs, epsilon: float) -> None:
    """And it answers locally all that the limit lets it: a tighter one answers less."""
    predictions = world(4000, skills=SKILLS)
    asked = Targets(max_local_disagreement=epsilon)
    policy = tune(predictions, costs, asked, replace(SETTINGS, certified=False)).policy
    share, differs = local_share(policy, predictions)
    assert 0 < differs <= epsilon
    tighter = Targets(max_local_disagreement=epsilon / 2)
    other = tune(predictions, costs, tighter, replace(SETTINGS, certified=False)).policy
    assert local_share(other, predictions)[0] < share


def test_a_certificate_of_local_answers_is_seldom_broken(costs: Costs, draws: int) -> None:
    """Counted on many rows drawn alike, more of them differ in at most a share delta of the draws."""
    broken, shares = 0, []
    for draw in range(draws):
        seen, more = _world(1500, draw), _world(20_000, draw + 10_000)
        asked = Targets(max_local_disagreement=0.12)
        policy = tune(seen, costs, asked, replace(SETTINGS, seed=draw)).policy
        share, differs = local_share(policy, more)
        broken += differs > 0.12
        shares.append(share)
    assert broken <= most(draws, 0.1)
    assert np.mean(shares) > 0.2


def test_it_needs_no_labels_and_is_in_the_certificate(world: World, costs: Costs) -> None:
    """What the reference says is all that it is compared with."""
    predictions = world(4000, skills=SKILLS)
    blind = replace(predictions, label=np.full(len(predictions), -1))
    found = tune(blind, costs, Targets(max_local_disagreement=0.12), SETTINGS)
    assert found.policy.status == "certified"
    assert found.policy.certificate is not None
    (target,) = found.policy.certificate.targets
    assert (target.metric, target.epsilon) == ("local_disagreement", 0.12)
    assert any("local_disagreement under 0.12" in line for line in found.explanation)


def test_it_is_stricter_than_disagreement_of_all_answers(world: World, costs: Costs) -> None:
    """Answers of the reference, which never differ, make no room for others that do: that costs more."""
    predictions = world(6000, skills=SKILLS)
    local = tune(predictions, costs, Targets(max_local_disagreement=0.12), SETTINGS).policy
    every = replace(SETTINGS, method="disagreement")
    whole = tune(predictions, costs, Targets(max_accuracy_drop=0.12), every).policy
    assert local.expected.usd_per_1k is not None
    assert whole.expected.usd_per_1k is not None
    assert local.expected.usd_per_1k > whole.expected.usd_per_1k


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.floats(0.01, 0.3))
def test_its_p_value_looks_at_local_answers_alone(rows: list[tuple[bool, bool]], epsilon: float) -> None:
    """It is the exact binomial one of those that differ among them, however many the reference gives."""
    local = np.array([is_local for is_local, _ in rows])
    differs = np.array([differ for _, differ in rows])
    predictions = make_world(len(rows), skills=(0.7, 0.9))
    cheap = predictions.variants["cheap"]
    other = (cheap.prediction + differs) % 4
    large = replace(predictions.variants["middle"], prediction=other)
    table = replace(predictions, variants={"cheap": cheap, "large": large})
    names = ("cheap", "large")
    model = fit_scores(table, names, "max_probability", seed=0)
    sample = make_sample(table, names, {"cheap": 1.0, "large": 2.0}, model)
    constraint = Constraint("local_disagreement", "local_disagreement", epsilon, 1)
    losses = constraint.losses(sample)
    chosen = np.where(local, 0, 1)
    expected = binomial_p_value(int((local & differs).sum()), int(local.sum()), epsilon)
    assert constraint.p_value(sample, chosen, losses, 0.1) == expected
    mean = losses[chosen, np.arange(len(rows))].mean()
    beyond = (local & differs).sum() - epsilon * local.sum()
    assert mean * len(rows) == pytest.approx(beyond, abs=1e-9)


def test_a_share_beyond_one_is_refused(world: World, costs: Costs) -> None:
    """Fractions, not points."""
    with pytest.raises(InputError, match="local_disagreement"):
        tune(world(400), costs, Targets(max_local_disagreement=5.0), SETTINGS)
