"""A recipe becomes steps of distinct names, and `--only` picks all steps of what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress import plan
from compress.plan import plan_steps, steps_of
from compress.recipes.learning_parts import Part
from compress.recipes.parts import QuantizePart
from compress.recipes.recipe import Recipe, Target, parse_recipe
from compress.standing import key_of, select
from compress.steps import Step
from contract.errors import RecipeError
from contract.machine import Machine
from contract.prices import load_prices

VARIANTS: list[dict[str, Any]] = [
    {"name": "student-1.5", "kind": "distil", "parent": "teacher", "layers": [0]},
    {"name": "student-1.5-int8", "kind": "quantize", "parent": "student-1.5"},
    {"name": "fast", "kind": "latency", "parent": "teacher", "speed_ups": [1.5, 2]},
    {"name": "aware", "kind": "qat", "parent": "teacher"},
]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recipe:
    """A recipe of dotted names, over weights that need not be there."""
    monkeypatch.setattr(plan, "fingerprint", lambda weights: "0")
    monkeypatch.setattr("compress.feasibility.depth_of", lambda weights: 6)
    monkeypatch.setattr("compress.feasibility.foreign_reason", lambda weights: None)
    (tmp_path / "data.csv").write_text("text,label\n")
    raw = {"name": "r", "data": {"file": "data.csv"}, "teacher": {"weights": "model"}, "variants": VARIANTS}
    return parse_recipe(raw, folder=tmp_path)


@pytest.mark.parametrize(
    ("only", "wanted", "unwanted"),
    [
        ("student-1.5", {"student-1.5", "student-1.5.export", "student-1.5.measure"}, "student-1.5-int8"),
        ("fast-1.5x", {"fast.table", "fast-1.5x", "fast-1.5x.export", "fast-1.5x.measure"}, "fast-2x"),
        ("fast", {"fast.table", "fast-1.5x.measure", "fast-2x", "fast-2x.measure"}, "aware"),
        ("aware", {"aware.train", "aware.train.export", "aware", "aware.measure"}, "fast.table"),
        ("fast-2x.export", {"fast-1.5x", "fast-2x", "fast-2x.export"}, "fast-2x.measure"),
    ],
)
def test_only_takes_every_step_of_a_variant(
    recipe: Recipe, only: str, wanted: set[str], unwanted: str
) -> None:
    """Dots in a name cut nothing off, and the name of a latency part stands for all that it makes."""
    found = {step.name for step in select(plan_steps(recipe), only)}
    assert wanted | {"data", "teacher"} <= found
    assert unwanted not in found


def test_only_of_what_is_not_there_is_refused(recipe: Recipe) -> None:
    """The first half of a dotted name is the name of nothing."""
    with pytest.raises(RecipeError, match="no step 'student-1'"):
        select(plan_steps(recipe), "student-1")


def test_two_steps_of_one_name_are_refused(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan in which one step would overwrite another is refused by the names."""

    def doubled(recipe: Recipe, part: QuantizePart) -> list[Step]:
        return [*steps_of(recipe, recipe.variants[0]), *steps_of(recipe, recipe.variants[0])]

    expansions: dict[type[Part], Any] = {**plan._EXPANSIONS, QuantizePart: doubled}
    monkeypatch.setattr(plan, "_EXPANSIONS", expansions)
    with pytest.raises(RecipeError, match=r"two steps are named student-1\.5, student-1\.5\.export"):
        plan_steps(recipe)


def test_one_more_speed_up_leaves_the_others_as_they_are(recipe: Recipe) -> None:
    """What decides a step of a chain is its own speed-up, not the list that it stands in."""
    longer = recipe.model_dump(mode="json", by_alias=True)
    longer["variants"][2]["speed_ups"] = [1.5, 2, 4]
    before, after = (
        {step.name: (step.config, step.inputs) for step in plan_steps(some)}
        for some in (recipe, Recipe.model_validate(longer))
    )
    assert {"fast-4x", "fast-4x.export", "fast-4x.measure"} == set(after) - set(before)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("target", "same"),
    [
        ({"calls": 20, "seconds": 1.0}, True),
        ({"lengths": "test"}, True),
        ({"lengths": "certify"}, True),
        ({"lengths": "train"}, False),
        ({"threads": 2}, False),
        ({"provider": "cuda"}, False),
    ],
)
def test_a_table_is_measured_again_for_what_it_reads_alone(
    recipe: Recipe, target: dict[str, Any], same: bool
) -> None:
    """How often variants are timed is nothing to a table; nor are lengths that decide nothing."""
    other = recipe.model_copy(update={"target": Target.model_validate(target)})
    configs = [
        next(step.config for step in plan_steps(some) if step.name == "fast.table")
        for some in (recipe, other)
    ]
    assert (configs[0] == configs[1]) == same
    Target.model_validate(configs[1]["target"])


@pytest.mark.parametrize(
    ("changes", "same"), [({"usd_per_core_hour": 1.0}, False), ({"as_of": "2999-01-01"}, True)]
)
def test_another_price_of_a_core_measures_again_and_trains_nothing(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], same: bool
) -> None:
    """What a measurement says in USD is never that of an older price list; nothing else depends on it."""
    machine = Machine(cpu="x", cores=1, memory_bytes=1, system="s")

    def keys() -> dict[str, str]:
        return {step.name: key_of(step, {}, machine) for step in plan_steps(recipe)}

    before = keys()
    other = load_prices().model_copy(update=changes)
    monkeypatch.setattr(plan, "load_prices", lambda: other)
    after = keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == (set() if same else {name for name in before if name.endswith(".measure")})


def test_what_auto_means_is_in_the_key_of_training_alone() -> None:
    """A processor with bfloat16 trains again; reading the data does not depend on it."""
    machines = [Machine(cpu="x", cores=1, memory_bytes=1, system="s", isa=isa) for isa in ((), ("amx_bf16",))]
    distil, data = (
        {key_of(Step("s", kind, "s", {}), {}, machine) for machine in machines} for kind in ("distil", "data")
    )
    assert (len(distil), len(data)) == (2, 1)
