"""Certificates from few labels: what is asked, what it proves, and what more would be worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from contract.costs import Cost
from contract.errors import InputError, PredictionsError
from contract.predictions import UNLABELLED, Predictions
from router.decide.scores import IntArray
from router.labels.certify import UNKNOWN, certify, weighted_p_value
from router.labels.draw import Draw, draw_rows
from router.labels.pair import Pair, make_pair
from router.labels.result import result_of, savings_of
from router.labels.worth import worth_of
from router.tune.settings import TuneSettings
from tests.router.conftest import make_world
from tests.support.simulations import most

World = Callable[..., Predictions]
Costs = dict[str, Cost]
EPSILON, DELTA = 0.02, 0.1
SKILLS = (0.8, 0.85, 0.9)
SETTINGS = TuneSettings(reference="large", variants=("cheap", "large"))


def without_labels(predictions: Predictions) -> Predictions:
    """Return the rows as they are before anybody has looked at them."""
    return replace(predictions, label=np.full(len(predictions), UNLABELLED))


def losses_of(truth: Predictions, pair: Pair, draw: Draw) -> IntArray:
    """Return what the true labels of the drawn rows say."""
    rows = pair.rows[draw.places]
    right = [truth.correct(name)[rows].astype(np.int64) for name in (pair.reference, pair.cheap)]
    return np.asarray(right[0] - right[1])


def _drawn(truth: Predictions, costs: Costs, budget: int, seed: int = 0) -> tuple[Pair, Draw]:
    pair = make_pair(without_labels(truth), costs, replace(SETTINGS, seed=seed), EPSILON)
    return pair, draw_rows(pair, budget, seed)


def test_only_rows_that_differ_are_asked_safest_first(world: World, costs: Costs) -> None:
    """Each drawn row has two answers, scores fall, and there are no more rows than the budget."""
    pair, draw = _drawn(world(4000, skills=SKILLS), costs, 150)
    assert pair.differs[draw.places].all()
    assert (np.diff(draw.scores(pair)) <= 0).all()
    assert 0 < len(draw) <= 150
    assert draw.scores(pair).min() >= pair.path[draw.level]


def test_all_that_differ_among_the_rows_drawn_are_asked(world: World, costs: Costs) -> None:
    """Down to the lowest threshold none is left out: agreeing rows need no label, so all rows are known."""
    pair, draw = _drawn(world(4000, skills=SKILLS), costs, 60)
    again = np.random.default_rng([0, 1]).permutation(len(pair))[: draw.n]
    above = again[pair.differs[again] & (pair.scores[again] >= pair.path[draw.level])]
    assert sorted(above.tolist()) == sorted(draw.places.tolist())
    assert draw.probability == pytest.approx(draw.n / len(pair))


def test_labels_play_no_part_in_what_is_asked(world: World, costs: Costs) -> None:
    """Two tables that differ in the truth alone have the same rows drawn."""
    truth = world(2000, skills=SKILLS)
    other = replace(truth, label=np.roll(truth.label, 1))
    first, second = _drawn(truth, costs, 80), _drawn(other, costs, 80)
    assert first[1].places.tolist() == second[1].places.tolist()


def test_stopping_early_certifies_a_prefix_of_the_same_tests(world: World, costs: Costs) -> None:
    """A threshold's test is the same whether or not labels below it are known."""
    truth = world(4000, skills=SKILLS)
    pair, draw = _drawn(truth, costs, 200)
    losses = losses_of(truth, pair, draw)
    whole = certify(pair, draw, losses, EPSILON, DELTA)
    part = losses.copy()
    part[40:] = UNKNOWN
    early = certify(pair, draw, part, EPSILON, DELTA)
    assert early.steps == whole.steps[: len(early.steps)]
    assert len(early.steps) < len(whole.steps)


def test_the_worst_labels_certify_less(world: World, costs: Costs) -> None:
    """Where only the reference is right in every differing row, less is accepted."""
    truth = world(4000, skills=SKILLS)
    pair, draw = _drawn(truth, costs, 200)
    good = certify(pair, draw, losses_of(truth, pair, draw), EPSILON, DELTA).best
    bad = certify(pair, draw, np.ones(len(draw), dtype=np.int64), EPSILON, DELTA).best
    assert good is not None
    assert bad is None or bad.place < good.place


def test_a_certificate_from_chosen_labels_is_seldom_broken(costs: Costs, draws: int) -> None:
    """Counted on many rows drawn alike, the drop exceeds the limit in at most a share delta of the draws."""
    large = make_world(200_000, seed=10_000, skills=SKILLS)
    lost = large.correct("large").astype(np.int64) - large.correct("cheap")
    confidence = large.variants["cheap"].confidence
    broken, found = 0, 0
    for seed in range(draws):
        truth = make_world(3000, seed=seed, skills=SKILLS)
        pair, draw = _drawn(truth, costs, 150, seed)
        best = certify(pair, draw, losses_of(truth, pair, draw), EPSILON, DELTA).best
        if best is not None:
            found += 1
            broken += float((lost * (confidence >= best.threshold)).mean()) > EPSILON
    assert broken <= most(draws, DELTA)
    assert found >= 0.8 * draws


def test_weights_stand_for_rows_that_were_not_labelled() -> None:
    """Betting on weighted losses passes a drop well under the limit, and not one above it, in most draws."""
    rng = np.random.default_rng(0)
    passed = {0.0: 0, 0.3: 0}
    for chance in passed:
        for _ in range(40):
            probability = rng.uniform(0.4, 1.0, 3000)
            loss = (rng.random(3000) < 0.2) * np.where(rng.random(3000) < 0.5 + chance / 2, 1.0, -1.0)
            known = rng.random(3000) < probability
            passed[chance] += weighted_p_value(np.where(known, loss, 0.0), probability, 0.05, DELTA) <= DELTA
    assert passed[0.0] >= 30
    assert passed[0.3] <= 4


def test_more_labels_are_worth_something_and_never_less_than_now(world: World, costs: Costs) -> None:
    """The interval holds the expectation, and both lie at or above what is certified already."""
    truth = world(4000, skills=SKILLS)
    pair, draw = _drawn(truth, costs, 100)
    losses = losses_of(truth, pair, draw)
    found = certify(pair, draw, losses, EPSILON, DELTA)
    few, many = (
        worth_of(pair, draw, losses, found, savings_of(pair, costs), labels=n, epsilon=EPSILON, delta=DELTA)
        for n in (20, 400)
    )
    assert few.now <= few.low <= few.expected <= few.high
    assert few.expected < many.expected


def test_the_worth_of_the_next_labels_is_what_they_bring_on_average(costs: Costs) -> None:
    """Over several worlds the saving certified with twice the labels is near what was told to be expected."""
    told, got = [], []
    for seed in range(12):
        truth = make_world(6000, seed=seed, skills=SKILLS)
        pair = make_pair(without_labels(truth), costs, replace(SETTINGS, seed=seed), EPSILON)
        small, double = draw_rows(pair, 60, seed), draw_rows(pair, 120, seed)
        savings = savings_of(pair, costs)
        losses = losses_of(truth, pair, small)
        found = certify(pair, small, losses, EPSILON, DELTA)
        told.append(
            worth_of(pair, small, losses, found, savings, labels=60, epsilon=EPSILON, delta=DELTA).expected
        )
        best = certify(pair, double, losses_of(truth, pair, double), EPSILON, DELTA).best
        got.append(0.0 if best is None else float(savings[best.place]))
    assert np.mean(told) == pytest.approx(np.mean(got), abs=0.08)


def test_the_policy_says_how_it_was_certified(world: World, costs: Costs) -> None:
    """The certificate counts labels and rows without one; its threshold is the lowest that passed."""
    truth = world(4000, skills=SKILLS)
    pair, draw = _drawn(truth, costs, 200)
    told = result_of(
        pair, draw, losses_of(truth, pair, draw), without_labels(truth), costs, SETTINGS, EPSILON
    )
    certificate = told.policy.certificate
    assert certificate is not None
    assert certificate.n_labels == len(draw)
    assert certificate.n_certify == draw.n
    assert "trinomial" in certificate.method
    best = told.certified.best
    assert best is not None
    assert told.policy.stages[0].threshold == best.threshold
    assert any("next 100 labels" in line for line in told.explanation)


def test_rows_that_all_have_labels_are_for_tune(world: World, costs: Costs) -> None:
    """Where nothing is left to label the error names the command for labelled rows."""
    with pytest.raises(PredictionsError, match="sluice tune"):
        make_pair(world(2000, skills=SKILLS), costs, SETTINGS, EPSILON)


def test_a_variant_that_is_not_cheaper_is_refused(world: World, costs: Costs) -> None:
    """Only what costs less than the reference can go before it."""
    predictions = without_labels(world(2000, skills=SKILLS))
    with pytest.raises(InputError, match="not a variant that costs less"):
        make_pair(predictions, costs, SETTINGS, EPSILON, cheap="large")


def test_labelled_rows_fix_the_path_and_are_not_counted(world: World, costs: Costs) -> None:
    """Rows with a label are left to fix thresholds; only the others are drawn from."""
    truth = world(3000, skills=SKILLS)
    label = truth.label.copy()
    label[500:] = UNLABELLED
    pair = make_pair(replace(truth, label=label), costs, SETTINGS, EPSILON)
    assert pair.n_path == 500
    assert pair.rows.min() == 500
