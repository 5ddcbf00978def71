"""The target on errors among what is answered: of the cheap stages' own answers a bounded share is wrong."""

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


def wrong_among_local(policy: Policy, predictions: Predictions) -> tuple[float, float]:
    """Return the share of rows that the reference does not answer, and the share of these that is wrong."""
    rows = replay(compile_policy(policy, predictions.labels), predictions)
    names = np.array([stage.variant for stage in policy.stages])
    local = names[rows.stage] != policy.reference
    wrong = rows.answer != predictions.label
    return float(local.mean()), float(wrong[local].mean()) if local.any() else 0.0


def test_a_certificate_of_what_is_answered_is_seldom_broken(costs: Costs, draws: int) -> None:
    """On many rows drawn alike, more of the local answers are wrong in at most a share delta of the draws."""
    broken, shares = 0, []
    for draw in range(draws):
        seen, more = make_world(1500, seed=draw), make_world(20_000, seed=draw + 10_000)
        asked = Targets(max_answered_error=0.1)
        policy = tune(seen, costs, asked, replace(SETTINGS, seed=draw)).policy
        share, wrong = wrong_among_local(policy, more)
        broken += wrong > 0.1
        shares.append(share)
    assert broken <= most(draws, 0.1)
    assert np.mean(shares) > 0.2


def test_labels_count_and_not_what_the_reference_says(world: World, costs: Costs) -> None:
    """A reference that is always wrong changes nothing for what the others answer."""
    predictions = world(4000)
    off = predictions.variants["large"]
    useless = replace(off, prediction=(predictions.label + 1) % 4)
    table = replace(predictions, variants={**predictions.variants, "large": useless})
    asked = Targets(max_answered_error=0.1)
    one, other = tune(predictions, costs, asked, SETTINGS), tune(table, costs, asked, SETTINGS)
    assert one.policy.status == other.policy.status == "certified"
    assert one.policy.stages[0] == other.policy.stages[0]


def test_it_is_in_the_certificate_by_its_name(world: World, costs: Costs) -> None:
    """Metric, limit and the method that says what counted as wrong."""
    found = tune(world(4000), costs, Targets(max_answered_error=0.1), SETTINGS)
    assert found.policy.certificate is not None
    (target,) = found.policy.certificate.targets
    assert (target.metric, target.epsilon) == ("answered_error", 0.1)
    assert target.method == "exact binomial on errors of local answers"
    assert any("answered_error under 0.1" in line for line in found.explanation)


def test_without_labels_it_is_disagreement_and_says_so(world: World, costs: Costs) -> None:
    """The same policy as by disagreement of local answers, and the explanation tells what was counted."""
    predictions = world(4000, skills=(0.7, 0.85, 1.0))
    blind = replace(predictions, label=np.full(len(predictions), -1))
    found = tune(blind, costs, Targets(max_answered_error=0.12), SETTINGS)
    local = tune(blind, costs, Targets(max_local_disagreement=0.12), SETTINGS)
    assert found.policy.stages == local.policy.stages
    assert found.policy.certificate is not None
    assert found.policy.certificate.metric == "answered_error"
    assert "disagreement" in found.policy.certificate.targets[0].method
    assert any("No row has a label" in line for line in found.explanation)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.floats(0.01, 0.3))
def test_its_p_value_looks_at_local_answers_alone(rows: list[tuple[bool, bool]], epsilon: float) -> None:
    """It is the exact binomial one of those that are wrong among them, however many the reference gives."""
    local = np.array([is_local for is_local, _ in rows])
    wrong = np.array([is_wrong for _, is_wrong in rows])
    predictions = make_world(len(rows), skills=(0.7, 0.9))
    cheap = replace(predictions.variants["cheap"], prediction=(predictions.label + wrong) % 4)
    table = replace(predictions, variants={"cheap": cheap, "large": predictions.variants["middle"]})
    names = ("cheap", "large")
    model = fit_scores(table, names, "max_probability", seed=0)
    sample = make_sample(table, names, {"cheap": 1.0, "large": 2.0}, model)
    constraint = Constraint("answered_error", "answered_error", epsilon, 1)
    losses = constraint.losses(sample)
    expected = binomial_p_value(int((local & wrong).sum()), int(local.sum()), epsilon)
    assert constraint.p_value(sample, np.where(local, 0, 1), losses, 0.1) == expected


def test_a_share_beyond_one_is_refused(world: World, costs: Costs) -> None:
    """Fractions, not points."""
    with pytest.raises(InputError, match="answered_error"):
        tune(world(400), costs, Targets(max_answered_error=5.0), SETTINGS)
