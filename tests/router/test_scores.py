"""Scores: hand-computed values, properties on any logits, parameters that survive JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contract.probabilities import softmax
from router.decide.scores import (
    agreement,
    basic_score,
    entropy,
    margin,
    max_probability,
    scorer_from_parameters,
)
from router.tune.calibrate import expected_calibration_error, fit_deferral, fit_per_class, fit_temperature

Floats = np.ndarray[tuple[int, int], np.dtype[np.float64]]
LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 8)), elements=st.floats(-60, 60))


def test_scores_of_one_row_by_hand() -> None:
    """Probabilities 0.5, 0.25, 0.25 have maximum 0.5, margin 0.25 and entropy 1.5 bits of log2(3)."""
    p = softmax(np.log(np.array([[0.5, 0.25, 0.25]])))
    assert p[0].tolist() == pytest.approx([0.5, 0.25, 0.25])
    assert max_probability(p)[0] == pytest.approx(0.5)
    assert margin(p)[0] == pytest.approx(0.25)
    assert entropy(p)[0] == pytest.approx(1 - 1.5 / np.log2(3))


@given(LOGITS, st.floats(0.1, 10))
def test_every_basic_score_lies_between_zero_and_one(logits: Floats, temperature: float) -> None:
    """Whatever the logits and temperature, scores are in [0, 1] and probabilities sum to one."""
    assert softmax(logits, temperature).sum(axis=1) == pytest.approx(1.0)
    for name in ("max_probability", "margin", "entropy"):
        score = basic_score(name, logits, temperature)
        assert score.shape == (len(logits),)
        assert ((score >= 0) & (score <= 1 + 1e-12)).all()


@given(LOGITS, st.floats(-30, 30))
def test_scores_ignore_a_constant_added_to_the_logits(logits: Floats, shift: float) -> None:
    """Softmax scores depend on differences of logits only."""
    for name in ("max_probability", "margin", "entropy"):
        assert basic_score(name, logits + shift) == pytest.approx(basic_score(name, logits), abs=1e-7)


def test_agreement_ranks_votes_before_confidence() -> None:
    """A row with one more vote outranks any confidence; without earlier stages it is the confidence."""
    confidence = np.array([0.2, 0.99])
    votes = agreement(confidence, np.array([1, 1]), np.array([[1], [0]]))
    assert votes.tolist() == pytest.approx([0.6, 0.495])
    assert agreement(confidence, np.array([1, 1]), None) is confidence


def test_the_temperature_that_made_the_logits_is_found_again() -> None:
    """Labels drawn from softmax(logits / 2.5) give a temperature near 2.5, and better calibration."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (8000, 6))
    p = softmax(logits, 2.5)
    labels = (p.cumsum(axis=1) > rng.random((8000, 1))).argmax(axis=1)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(2.5, rel=0.06)
    right = logits.argmax(axis=1) == labels
    before = expected_calibration_error(max_probability(softmax(logits)), right)
    after = expected_calibration_error(max_probability(softmax(logits, temperature)), right)
    assert after < 0.03 < before


def _classes(
    n: int = 6000,
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]],
    np.ndarray[tuple[int], np.dtype[np.int64]],
    np.ndarray[tuple[int], np.dtype[np.bool_]],
]:
    """Return confidences, predicted classes and rightness of three classes.

    Class 0 is overconfident, 1 honest and 2 rare.
    """
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1.0, n)
    predicted = np.where(rng.random(n) < 0.005, 2, rng.integers(0, 2, n))
    right = rng.random(n) < np.where(predicted == 0, confidence - 0.3, confidence)
    return confidence, predicted, right


def test_the_score_by_class_is_calibrated_where_a_class_has_rows_and_pooled_where_not() -> None:
    """An overconfident class scores lower at one confidence, and the order of confidences stays.

    A rare class and strangers use the pooled curve.
    """
    confidence, predicted, right = _classes()
    labels = ("a", "b", "c")
    parameters = json.loads(json.dumps(fit_per_class(confidence, predicted, right, labels, 100, 50.0)))
    assert set(parameters["classes"]) == {"a", "b"}
    scorer = scorer_from_parameters("per_class", parameters, labels)
    at = np.array([0.8, 0.8, 0.8, 0.8])
    scores = scorer(at, np.array([0, 1, 2, -2]))
    assert scores[0] == pytest.approx(0.5, abs=0.06)
    assert scores[1] == pytest.approx(0.8, abs=0.06)
    assert scores[2] == scores[3]
    rising = scorer(np.linspace(0, 1, 200), np.zeros(200, dtype=np.int64))
    assert (np.diff(rising) > 0).all()
    assert rising.min() >= 0
    assert rising.max() <= 1


def test_the_learned_rule_defers_where_the_next_stage_gains() -> None:
    """Where the next variant is always right, the overconfident class scores lower than the honest one."""
    confidence, predicted, right = _classes()
    labels = ("a", "b", "c")
    always = np.ones(len(right), dtype=bool)
    parameters = json.loads(json.dumps(fit_deferral(confidence, predicted, right, always, labels, 100)))
    scorer = scorer_from_parameters("deferral", parameters, labels)
    scores = scorer(np.array([0.8, 0.8, 0.8]), np.array([0, 1, 2]))
    assert scores[0] == pytest.approx(0.5 * 0.5, abs=0.05)
    assert scores[1] == pytest.approx(0.5 * 0.8, abs=0.05)
    assert 0 <= scores[2] <= 1
