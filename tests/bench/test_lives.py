"""Simulated lives, in few and short ones: what `python -m bench.routing --only lives` counts over 200."""

from __future__ import annotations

import numpy as np

from bench.routing.lives import World, live_through, rules_of, steer_through, watch
from tests.support.simulations import most


def world() -> World:
    """A first stage that differs more often the less sure it is."""
    rng = np.random.default_rng(0)
    score = rng.beta(5, 1.5, 20_000)
    differs = rng.random(20_000) < 0.3 * (1 - score)
    loss = np.where(differs, np.where(rng.random(20_000) < 0.7, 1.0, -1.0), 0.0)
    hard = rng.random(20_000) < 0.2
    accepted = score >= 0.7
    drop = float((loss * accepted).mean())
    return World(score, loss, differs, hard, 0.7, drop + 0.002, float((differs & accepted).mean()) + 0.005)


def test_lives_without_a_change_are_seldom_alarmed_and_the_interval_seldom_misses(draws: int) -> None:
    """By labels and without any: at most one in ten, over the whole life."""
    of = world()
    for by in ("labels", "no labels"):
        lives = [live_through(of, "none", np.random.default_rng(seed), 15_000) for seed in range(draws)]
        found = [watch(of, one, rules_of(of)[by]) for one in lives]
        assert sum(one.missed for one in found) <= most(draws, 0.1)
        assert sum(one.alarm_at is not None for one in found) <= most(draws, 0.1)


def test_a_sudden_shift_is_found_and_steering_answers_it_without_a_wrong_move(draws: int) -> None:
    """Most lives are alarmed, and what steering loses at the end is less than what nobody answered."""
    of = world()
    lives = [live_through(of, "shift", np.random.default_rng(seed), 30_000) for seed in range(draws)]
    found = [watch(of, one, rules_of(of)["no labels"]) for one in lives]
    assert sum(one.since is not None for one in found) >= 0.6 * draws
    steered = [steer_through(of, one, rules_of(of)["both"]) for one in lives]
    assert sum(one.wrong > 0 for one in steered) <= most(draws, 0.1)
    assert sum(one.false_alarms > 0 for one in steered) <= most(draws, 0.1)
    assert np.mean([one.late for one in steered]) < of.promised_drop + 0.018
