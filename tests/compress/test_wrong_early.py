"""What cannot work is refused before anything is trained for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.exploration.search import run_search
from compress.plan import plan_steps
from compress.recipes.recipe import Recipe, parse_recipe
from compress.recipes.search_part import SearchPart, SearchSpace
from contract.errors import RecipeError
from tests.compress.exploration.test_search import Told


def test_a_space_that_does_not_fit_the_teacher_is_refused_before_variants_are_made(
    toy_recipe: Recipe, tmp_path: Path
) -> None:
    """A layer that the teacher does not have ends the search with no variant trained."""
    brief = toy_recipe.teacher.model_copy(
        update={"training": toy_recipe.teacher.training.model_copy(update={"epochs": 1})}
    )
    search = SearchPart(space=SearchSpace(layers=((0, 7),)))
    recipe = toy_recipe.model_copy(update={"teacher": brief, "search": search})
    told = Told()
    with pytest.raises(RecipeError, match="layers of the teacher"):
        run_search(recipe, tmp_path / "family", progress=told)
    assert {step.partition(".")[0] for step in told.of("done")} == {"data", "teacher"}


def images(**more: Any) -> dict[str, Any]:
    """Return a recipe for images."""
    teacher = {"weights": "small-cnn", "image": {"height": 8, "width": 8, "channels": 1}}
    data = {"file": "sklearn:digits", "input": "image"}
    return {"name": "digits", "data": data, "teacher": teacher, **more}


@pytest.mark.parametrize(
    "settings",
    [{}, {"method": "fp16"}, {"method": "static", "smooth": 0.5}, {"method": "qdq", "mixed": 0.01}],
)
def test_an_image_recipe_with_a_text_s_quantization_is_refused(settings: dict[str, Any]) -> None:
    """Dynamic, half, smoothed and mixed quantization of convolutions are refused as the recipe is read."""
    part = {"name": "int8", "kind": "quantize", "parent": "teacher", **settings}
    with pytest.raises(RecipeError, match="static or qdq"):
        parse_recipe(images(variants=[part]))


def test_an_image_recipe_takes_static_and_qdq_and_no_search() -> None:
    """The two methods for convolutions pass; a search, which makes transformers, does not."""
    parts = [
        {"name": name, "kind": "quantize", "parent": "teacher", "method": name} for name in ("static", "qdq")
    ]
    assert len(parse_recipe(images(variants=parts)).variants) == 2
    with pytest.raises(RecipeError, match="transformer"):
        parse_recipe(images(search={}))


DISTIL = {"name": "student", "kind": "distil", "parent": "teacher", "layers": [0, 1]}


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ([DISTIL | {"layers": [0, 9]}], "'student': no layer 9; its parent 'teacher' has 0 to "),
        ([{"name": "cut", "kind": "prune", "parent": "teacher", "layers": [9]}], "'cut': no layer 9"),
        (
            [
                DISTIL | {"layers": [1]},
                {"name": "fast", "kind": "latency", "parent": "student", "speed_ups": [2]},
                DISTIL | {"name": "smaller", "parent": "fast-2x", "layers": [1]},
            ],
            "'smaller': no layer 1; its parent 'fast-2x' has 0 to 0",
        ),
    ],
)
def test_a_layer_that_a_parent_will_not_have_is_refused_with_the_plan(
    toy_recipe: Recipe, variants: list[dict[str, Any]], words: str
) -> None:
    """Layers are counted from the teacher's weights down the chain of parents, before any step."""
    recipe = Recipe.model_validate(
        toy_recipe.model_dump(mode="json", exclude_defaults=True) | {"variants": variants}
    )
    with pytest.raises(RecipeError, match=words):
        plan_steps(recipe)
