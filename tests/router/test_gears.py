"""Gears: a ladder of policies certified at once, each gear's promise kept in all but delta of the draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from contract.costs import Cost
from contract.errors import InputError, PolicyError
from contract.policy import Policy, parse_policy
from contract.predictions import Predictions, VariantPredictions
from router.decide.cascade import compile_policy
from router.decide.simulate import replay, simulate
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune
from tests.support.simulations import most

World = Callable[..., Predictions]
COSTS = {"small": Cost(1.0), "large": Cost(20.0)}
DROP, OVERLOAD, DELTA = 0.01, 0.04, 0.1


@pytest.fixture(scope="module")
def population() -> Predictions:
    """Return 40,000 rows whose small variant is a little less right, where its confidence is low."""
    rng = np.random.default_rng(1)
    n, classes = 40_000, 4
    label = rng.integers(0, classes, n)
    hard = rng.random(n)
    variants = {}
    for name, worst, shape in (("small", 0.6, 3), ("large", 0.25, 3)):
        sure = 1 - worst * hard**shape
        right = rng.random(n) < sure
        prediction = np.where(right, label, (label + rng.integers(1, classes, n)) % classes)
        confidence = np.clip(sure + rng.normal(0, 0.05, n), 0, 1)
        variants[name] = VariantPredictions(prediction.astype(np.int64), confidence)
    return Predictions(tuple("abcd"), label.astype(np.int64), variants)


def _ladder(population: Predictions, seed: int = 0, n: int = 4000, **settings: object) -> Policy:
    rows = np.random.default_rng(seed).choice(len(population), n, replace=False)
    asked = TuneSettings(reference="large", seed=seed, per_class="never", gears=True, **settings)  # type: ignore[arg-type]
    return tune(population.take(rows), COSTS, Targets(max_accuracy_drop=DROP), asked).policy


def _drop(policy: Policy, population: Predictions) -> float:
    answer = replay(compile_policy(policy, population.labels), population).answer
    return float(population.correct("large").mean() - (answer == population.label).mean())


def test_every_promise_of_the_ladder_holds_together_in_all_but_delta_of_the_draws(
    population: Predictions, draws: int
) -> None:
    """Any gear beyond its own epsilon breaks a draw: one union bound covers both sequences."""
    broken, with_overload = 0, 0
    for seed in range(draws):
        policy = _ladder(population, seed, overload_drop=OVERLOAD)
        drops = [_drop(policy.in_gear(gear.name), population) - gear.epsilon for gear in policy.gears]
        broken += max(drops, default=0.0) > 0
        with_overload += any(gear.epsilon == OVERLOAD for gear in policy.gears)
    assert broken <= most(draws, DELTA)
    assert with_overload > draws / 2


def test_a_ladder_goes_from_the_safest_to_the_cheapest(population: Predictions) -> None:
    """Idle escalates most and overload least; busy is the policy itself; epsilons and levels add up."""
    policy = _ladder(population, overload_drop=OVERLOAD)
    names = [gear.name for gear in policy.gears]
    assert names == ["idle", "busy", "overload-1", "overload-2", "overload-3"]
    usd = [gear.expected.usd_per_1k or 0.0 for gear in policy.gears]
    assert usd == sorted(usd, reverse=True)
    assert policy.gears[1].stages == policy.stages
    assert [gear.epsilon for gear in policy.gears] == [DROP, DROP, OVERLOAD, OVERLOAD, OVERLOAD]
    levels = {gear.delta for gear in policy.gears}
    assert sum(level or 0.0 for level in levels) == pytest.approx(DELTA)
    assert all(gear.p_value is not None and gear.p_value <= (gear.delta or 0) for gear in policy.gears)
    assert policy.certificate is not None
    assert policy.certificate.delta == pytest.approx(DELTA)


def test_a_ladder_survives_the_disk_and_its_gears_are_what_simulate_finds(population: Predictions) -> None:
    """Read back, a policy has the same version; a gear replayed on certify rows does what it expects."""
    policy = _ladder(population, overload_drop=OVERLOAD)
    assert parse_policy(policy.dump()) == policy
    cheapest = policy.in_gear("overload-3")
    figures = simulate(population, COSTS, cheapest).figures
    assert figures["escalation_rate"] == pytest.approx(cheapest.expected.escalation_rate, abs=0.03)
    with pytest.raises(PolicyError, match="it has: idle, busy"):
        policy.in_gear("sixth")


def test_idle_and_busy_cost_none_of_the_level(population: Predictions) -> None:
    """Both passed one sequence: without overload gears the policy is the one that plain tuning gives."""
    rows = population.take(np.arange(4000))
    plain, geared = (
        tune(
            rows,
            COSTS,
            Targets(max_accuracy_drop=DROP),
            TuneSettings(reference="large", per_class="never", gears=gears),
        ).policy
        for gears in (False, True)
    )
    assert [gear.name for gear in geared.gears] == ["idle", "busy"]
    assert "gears" not in plain.dump()
    # What was asked for is recorded, and is another thing.
    assert geared.certificate is not None
    assert plain.certificate is not None
    certificate = geared.certificate.model_copy(update={"tuning": plain.certificate.tuning})
    bare = geared.model_copy(update={"gears": (), "certificate": certificate, "version": ""})
    assert bare.sealed().version == plain.version


@pytest.mark.parametrize(
    ("targets", "settings", "rule"),
    [
        (Targets(max_accuracy_drop=DROP), TuneSettings(overload_drop=OVERLOAD), "add --gears"),
        (Targets(max_accuracy_drop=DROP), TuneSettings(gears=True, certified=False), "certified"),
        (Targets(min_accuracy=0.5), TuneSettings(gears=True), "--max-accuracy-drop"),
        (Targets(max_accuracy_drop=DROP), TuneSettings(gears=True, overload_drop=DROP), "must be above"),
    ],
)
def test_gears_that_cannot_be_are_refused_with_the_next_step(
    population: Predictions, targets: Targets, settings: TuneSettings, rule: str
) -> None:
    """Uncertified, without a drop, or with an overload drop that is no looser: refused before any search."""
    with pytest.raises(InputError, match=rule):
        tune(population.take(np.arange(500)), COSTS, targets, settings)
