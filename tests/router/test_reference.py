"""Which variant drops are counted against: never one that a handful of rows chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from contract.costs import Cost
from contract.errors import PredictionsError
from contract.predictions import Predictions, VariantPredictions
from router.tune.compare import compare_scores
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune

World = Callable[..., Predictions]
Costs = dict[str, Cost]
ONE_POINT = Targets(max_accuracy_drop=0.01)


def _two(n: int, seed: int) -> Predictions:
    """Return n rows of a large variant 98.5% right and a cheap one 96.5% right, both sure of themselves."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    variants = {}
    for name, skill in (("cheap", 0.965), ("large", 0.985)):
        prediction = np.where(rng.random(n) < skill, label, 1 - label)
        variants[name] = VariantPredictions(prediction, 0.5 + 0.5 * rng.random(n))
    return Predictions(("neg", "pos"), label, variants)


@pytest.mark.parametrize("n", [10, 200])
def test_a_cheap_variant_is_not_certified_against_itself(n: int, draws: int) -> None:
    """Of small tables where the cheap variant loses two points none lets it answer everything."""
    costs = {"cheap": Cost(1.0), "large": Cost(10.0)}
    for seed in range(draws):
        policy = tune(_two(n, seed), costs, ONE_POINT, TuneSettings(seed=seed)).policy
        assert policy.reference == "large"
        assert policy.stages[-1].variant == "large"


def test_the_first_line_says_which_variant_is_the_reference_and_why(world: World, costs: Costs) -> None:
    """As asked, the family's teacher, or the dearest of a bare table."""
    table = world(400)
    first = {
        key: tune(table, costs, ONE_POINT, settings).explanation[0]
        for key, settings in (
            ("asked", TuneSettings(reference="middle", teacher="large")),
            ("teacher", TuneSettings(teacher="middle")),
            ("dearest", TuneSettings()),
        )
    }
    assert first["asked"] == "The reference is 'middle': as asked."
    assert first["teacher"].startswith("The reference is 'middle': the family's teacher")
    assert first["dearest"].startswith("The reference is 'large': the dearest variant (10 USD per 1,000)")


def test_of_equally_dear_variants_the_slowest_then_the_last_is_the_reference(world: World) -> None:
    """The rule for ties is stated, and needs no label."""
    table = world(400)
    slow = {"cheap": Cost(1.0), "middle": Cost(2.0, 9.0), "large": Cost(2.0, 3.0)}
    result = tune(table, slow, ONE_POINT)
    assert result.policy.reference == "middle"
    assert "of those equally dear (large) the slowest" in result.explanation[0]
    assert tune(table, dict.fromkeys(table.names, Cost(1.0)), ONE_POINT).policy.reference == "large"


def test_leaving_variants_out_leaves_the_reference_in(world: World, costs: Costs) -> None:
    """`--variants cheap` still counts drops against the dearest variant of the table."""
    result = tune(world(2000), costs, ONE_POINT, TuneSettings(variants=("cheap",)))
    assert result.policy.reference == "large"
    assert all(curve.reference == "large" for curve in compare_scores(world(400), costs))


def test_one_variant_alone_has_nothing_to_drop_from(world: World, costs: Costs) -> None:
    """A drop against itself is no promise; an accuracy is."""
    table = world(2000, skills=(0.95,))
    with pytest.raises(PredictionsError, match="only variant"):
        tune(table, costs, ONE_POINT)
    assert tune(table, costs, Targets(min_accuracy=0.9)).met


def test_a_reference_that_is_beaten_is_told(world: World, costs: Costs) -> None:
    """The dearest variant may not be the best: said, with the option that names the better one."""
    table = world(2000)
    seen = dict(table.variants)
    seen["cheap"], seen["large"] = seen["large"], seen["cheap"]
    swapped = replace(table, variants=seen)
    lines = tune(swapped, costs, ONE_POINT).explanation
    assert "--reference cheap counts drops against it" in lines[1]


def test_a_reference_that_is_not_there_is_refused_with_the_known_ones(world: World, costs: Costs) -> None:
    """An unknown --reference lists the variants; a variant without costs says how to leave it out."""
    with pytest.raises(PredictionsError, match="variants: cheap, middle, large"):
        tune(world(100), costs, ONE_POINT, TuneSettings(reference="teacher"))
    with pytest.raises(PredictionsError, match="--variants"):
        tune(world(100), {"cheap": Cost(1.0), "large": Cost(9.0)}, ONE_POINT)
