"""Every kind of certificate by simulation: over draws from one population, violations stay under delta."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.costs import Cost
from contract.formulas import macro_f1
from contract.predictions import Predictions
from router.decide.cascade import compile_policy
from router.decide.simulate import replay
from router.tune.targets import Targets
from router.tune.tune import TuneResult, TuneSettings, tune
from tests.support.simulations import most

World = Callable[..., Predictions]
DELTA = 0.1


@pytest.fixture(scope="module")
def population() -> Predictions:
    """Return 40,000 rows with a slice, whose cheap variants are nearly as good as the large one."""
    rng = np.random.default_rng(0)
    n, classes = 40_000, 3
    label = rng.choice(classes, n, p=[0.6, 0.3, 0.1])
    hard = rng.random(n)
    from contract.predictions import VariantPredictions

    variants = {}
    for name, worst in (("cheap", 0.5), ("middle", 0.35), ("large", 0.2)):
        sure = 1 - worst * hard**2
        right = rng.random(n) < sure
        prediction = np.where(right, label, (label + rng.integers(1, classes, n)) % classes)
        confidence = np.asarray(np.round(np.clip(sure + rng.normal(0, 0.08, n), 0, 1), 2), dtype=np.float64)
        variants[name] = VariantPredictions(prediction.astype(np.int64), confidence)
    return Predictions(("a", "b", "c"), label.astype(np.int64), variants, slices={"vip": rng.random(n) < 0.3})


COSTS = {"cheap": Cost(1.0), "middle": Cost(3.0), "large": Cost(12.0)}


def _drop(answer: np.ndarray[tuple[int], np.dtype[np.int64]], part: Predictions) -> float:
    return float(part.correct("large").mean() - (answer == part.label).mean())


def _results(
    population: Predictions, targets: Targets, n: int, draws: int, **settings: Any
) -> list[TuneResult]:
    found = []
    for draw in range(draws):
        rows = np.random.default_rng(draw).choice(len(population), n, replace=False)
        asked = TuneSettings(reference="large", seed=draw, **settings)
        found.append(tune(population.take(rows), COSTS, targets, asked))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"per_class": "never"},
        {"per_class": "never", "method": "betting"},
        {"per_class": "never", "method": "binomial"},
        {"per_class": "never", "method": "disagreement"},
        {"per_class": "never", "score": "per_class"},
        {"per_class": "never", "score": "agreement"},
    ],
    ids=lambda s: f"{s.get('method', 'trinomial')}-{s.get('score', 'max_probability')}",
)
def test_certified_drops_are_exceeded_in_at_most_delta_of_draws(
    population: Predictions, settings: Mapping[str, Any], draws: int
) -> None:
    """With heavy ties, three variants and all subsets: the drop on the population stays under epsilon."""
    results = _results(population, Targets(max_accuracy_drop=0.015), 2500, draws, **settings)
    answers = [replay(compile_policy(r.policy, population.labels), population).answer for r in results]
    violations = sum(_drop(answer, population) > 0.015 for answer in answers)
    assert violations <= most(draws, DELTA)
    if settings.get("method") != "disagreement":
        assert sum(r.met for r in results) > draws / 2


def test_naive_thresholds_break_the_same_promise_far_more_often(population: Predictions, draws: int) -> None:
    """The empirical optimum of the same rows exceeds the target in a quarter of the draws or more."""
    results = _results(
        population, Targets(max_accuracy_drop=0.015), 2500, draws, certified=False, per_class="never"
    )
    answers = [replay(compile_policy(r.policy, population.labels), population).answer for r in results]
    assert sum(_drop(answer, population) > 0.015 for answer in answers) > draws / 4


def test_a_certificate_of_several_targets_holds_for_all_at_once(population: Predictions, draws: int) -> None:
    """Accuracy, the recall of a class and a slice: any of them is broken in at most delta of the draws."""
    targets = Targets(max_accuracy_drop=0.03, max_recall_drop={"b": 0.05}, max_slice_drop={"vip": 0.04})
    broken = 0
    part_b = population.take(population.label == 1)
    part_vip = population.take(population.slices["vip"])
    for result in _results(population, targets, 3000, draws, per_class="never"):
        compiled = compile_policy(result.policy, population.labels)
        drops = [_drop(replay(compiled, part).answer, part) for part in (population, part_b, part_vip)]
        broken += drops[0] > 0.03 or drops[1] > 0.05 or drops[2] > 0.04
    assert broken <= most(draws, DELTA)


def test_a_certified_accuracy_and_a_certified_macro_f1_hold(population: Predictions, draws: int) -> None:
    """An absolute accuracy (exact binomial) and a macro-F1 drop (exact bounds) each stay within delta."""
    reference = macro_f1(population.label, population.variants["large"].prediction, 3)
    low = 0
    for result in _results(population, Targets(min_accuracy=0.90), 2500, draws, per_class="never"):
        answer = replay(compile_policy(result.policy, population.labels), population).answer
        low += result.met and (answer == population.label).mean() < 0.90
    assert low <= most(draws, DELTA)
    drops = 0
    for result in _results(population, Targets(max_f1_drop=0.02), 2500, draws, per_class="never"):
        answer = replay(compile_policy(result.policy, population.labels), population).answer
        drops += reference - macro_f1(population.label, answer, 3) > 0.02
    assert drops <= most(draws, DELTA)


def test_certified_rules_per_class_are_exceeded_in_few_draws(population: Predictions, draws: int) -> None:
    """Rules per predicted class are certified like any candidate, with the target itself the limit."""
    broken = 0
    for draw in range(draws):
        rows = np.random.default_rng(draw).choice(len(population), 4000, replace=False)
        settings = TuneSettings(reference="large", seed=draw)
        result = tune(population.take(rows), COSTS, Targets(max_accuracy_drop=0.02), settings)
        answer = replay(compile_policy(result.policy, population.labels), population).answer
        broken += _drop(answer, population) > 0.02
    assert broken <= most(draws, DELTA)


def test_thresholds_lie_between_scores_so_that_rounding_flips_nothing(population: Predictions) -> None:
    """Moving every confidence by 1e-6 either way leaves every answer of the policy as it was."""
    result = _results(population, Targets(max_accuracy_drop=0.015), 2500, 1, per_class="never")[0]
    compiled = compile_policy(result.policy, population.labels)
    before = replay(compiled, population)
    for shift in (-1e-6, 1e-6):
        moved = {
            name: replace(v, confidence=np.clip(v.confidence + shift, 0, 1))
            for name, v in population.variants.items()
        }
        after = replay(compiled, replace(population, variants=moved))
        assert (after.stage == before.stage).all()
