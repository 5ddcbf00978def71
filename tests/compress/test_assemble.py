"""What a family folder says of every variant that the steps made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from compress.assemble import _calibration_errors
from compress.costs import step_costs, training_of
from compress.lineage import KINDS, Lineage, lineages_of, lowerings_of
from compress.plan import plan_steps
from compress.recipes.parts import QuantizePart, VariantPart
from compress.recipes.recipe import Recipe, parse_recipe
from compress.steps import Step
from compress.store import Finished
from contract.family import VariantKind
from contract.prices import load_grid

VARIANTS = [
    {"name": "small", "kind": "distil", "parent": "teacher", "layers": [0], "twin": True},
    {"name": "fast", "kind": "latency", "parent": "teacher", "teacher": "small", "speed_ups": [2, 4]},
    {"name": "fast-int8", "kind": "quantize", "parent": "fast-4x"},
    {"name": "aware", "kind": "qat", "parent": "small"},
    {"name": "alone", "kind": "linear"},
]


@pytest.fixture
def recipe(weights_folder: Path, tmp_path: Path) -> Recipe:
    """A recipe whose parts make one variant, several, or a twin besides."""
    (tmp_path / "data.csv").write_text("text,label\n")
    raw = {"name": "toy", "data": {"file": "data.csv"}, "teacher": {"weights": str(weights_folder)}}
    return parse_recipe({**raw, "variants": VARIANTS}, folder=tmp_path)


def finished(step: Step, **cost: Any) -> Finished:
    """A finished step that cost something."""
    return Finished(step.name, "key", Path(), {}, {}, {"seconds": 1.0, **cost})


def test_every_kind_of_part_has_its_kind_of_variant() -> None:
    """No technique of the recipe is left without a word for what it makes, and the words are known."""
    union, _ = get_args(VariantPart)
    kinds = {get_args(part.model_fields["kind"].annotation)[0] for part in get_args(union)}
    assert kinds | {"teacher", "remote", "twin"} == set(KINDS)
    assert set(KINDS.values()) <= set(get_args(VariantKind))


def test_parts_that_make_several_variants_give_each_its_origin(recipe: Recipe) -> None:
    """A chain of speed-ups goes from one to the next, and a twin comes from nothing."""
    assert lineages_of(recipe) == {
        "teacher": Lineage("teacher"),
        "small": Lineage("distil", "teacher"),
        "small-twin": Lineage("twin"),
        "fast-2x": Lineage("latency", "teacher"),
        "fast-4x": Lineage("latency", "fast-2x"),
        "fast-int8": Lineage("quantize", "fast-4x"),
        "aware": Lineage("qat", "small"),
        "alone": Lineage("linear"),
    }


def test_a_variant_tells_the_techniques_of_what_is_not_listed(recipe: Recipe) -> None:
    """INT8 of an unlisted chain has the nearest listed parent, and names every technique on the way once."""
    found = lineages_of(recipe.model_copy(update={"unlisted": ("fast-2x", "fast-4x")}))["fast-int8"]
    assert (found.technique, found.parent, found.told) == ("quantize", "teacher", "latency + quantize")


def test_lowered_variants_tell_the_settings_that_tell_them_apart(recipe: Recipe) -> None:
    """Calibration is told where it sets scales; other variants have no such settings."""
    assert lowerings_of(recipe) == {"fast-int8": {"method": "dynamic"}, "aware": {"method": "dynamic"}}
    part = {"kind": "quantize", "name": "low", "parent": "teacher", "method": "static", "mixed": 0.01}
    low = QuantizePart.model_validate(part)
    assert lowerings_of(recipe.model_copy(update={"variants": (low,)})) == {
        "low": {"method": "static", "mixed": 0.01, "calibration": 256}
    }


def test_calibration_errors_are_those_of_the_rows_given() -> None:
    """Sure answers of which half are wrong are off by a half; a high temperature takes that away."""
    logits = np.tile(np.array([[20.0, 0.0]], np.float32), (40, 1))
    before, after = _calibration_errors(logits, np.arange(40) % 2, 1000.0)
    assert before == pytest.approx(0.5, abs=1e-6)
    assert after < 0.01


@pytest.mark.parametrize(
    ("name", "summed"),
    [
        ("teacher", ["teacher"]),
        ("small", ["small"]),
        ("small-twin", ["small-twin"]),
        ("fast-2x", ["fast.table", "fast-2x"]),
        ("fast-4x", ["fast.table", "fast-4x"]),
        ("fast-int8", ["fast-int8"]),
        ("aware", ["aware.train", "aware.train.export", "aware"]),
        ("alone", ["alone"]),
    ],
)
def test_training_sums_the_steps_that_made_a_variant(recipe: Recipe, name: str, summed: list[str]) -> None:
    """Seconds, energy and CO2e of all steps from its parent on: a chain's table, the two halves of QAT."""
    steps = plan_steps(recipe)
    done = {step.name: finished(step, energy_wh=2.0, provenance="estimated-load") for step in steps}
    training = training_of(name, lineages_of(recipe), steps, step_costs(steps, done))
    assert list(training.steps) == summed
    assert training.seconds == len(summed)
    assert training.energy_wh == 2.0 * len(summed)
    assert training.gco2e == pytest.approx(2.0 * len(summed) * load_grid().intensity() / 1000)
    assert training.energy_provenance == "estimated-load"


def test_a_step_that_was_not_metered_leaves_the_sum_unknown(recipe: Recipe) -> None:
    """A sum that lacks a part is not given as the whole; the seconds are known all the same."""
    steps = plan_steps(recipe)
    done = {step.name: finished(step, energy_wh=2.0, provenance="measured-rapl") for step in steps}
    done["aware"] = finished(next(s for s in steps if s.name == "aware"))
    training = training_of("aware", lineages_of(recipe), steps, step_costs(steps, done))
    assert (training.seconds, training.energy_wh, training.gco2e) == (3.0, None, None)
    assert training.energy_provenance == "none"


def test_energy_is_as_sure_as_its_least_sure_part(recipe: Recipe) -> None:
    """Measured and estimated energies together are an estimate."""
    steps = plan_steps(recipe)
    done = {step.name: finished(step, energy_wh=1.0, provenance="measured-rapl") for step in steps}
    table = next(step for step in steps if step.name == "fast.table")
    done["fast.table"] = finished(table, energy_wh=1.0, provenance="estimated-load")
    assert training_of("fast-4x", lineages_of(recipe), steps, step_costs(steps, done)).energy_provenance == (
        "estimated-load"
    )


def test_only_finished_steps_have_a_cost(recipe: Recipe) -> None:
    """A partial run tells what it has run, in the order of the plan."""
    steps = plan_steps(recipe)
    done = {step.name: finished(step) for step in steps if step.name in {"teacher", "data"}}
    costs = step_costs(steps, done)
    assert [(cost.name, cost.kind, cost.seconds) for cost in costs] == [
        ("data", "data", 1.0), ("teacher", "teacher", 1.0)
    ]  # fmt: skip
    assert costs[0].energy_wh is costs[0].gco2e is None
