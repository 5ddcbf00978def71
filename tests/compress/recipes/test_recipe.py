"""Recipes are read strictly: what is wrong is named by file, key and rule."""

from __future__ import annotations

from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from compress.recipes.recipe import load_recipe, parse_recipe
from contract.errors import RecipeError

GOOD: dict[str, Any] = {
    "name": "r",
    "data": {"file": "data.csv"},
    "teacher": {"weights": "model"},
    "variants": [
        {"name": "student", "kind": "distil", "parent": "teacher", "layers": [0]},
        {"name": "student-int8", "kind": "quantize", "parent": "student"},
    ],
}


LINEAR = {"name": "l", "kind": "linear", "parent": "teacher"}
SHARES = {"train": 0.4, "validation": 0.2, "tune": 0.1, "certify": 0.15, "test": 0.15}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return GOOD with one key set, by a dotted path."""
    raw = deepcopy(GOOD)
    here: Any = raw
    *way, last = path.split(".")
    for key in way:
        here = here[int(key)] if key.isdigit() else here[key]
    here[int(last) if last.isdigit() else last] = value
    return raw


def test_relative_paths_are_against_the_recipe(tmp_path: Path) -> None:
    """Data and weights are found beside the recipe, wherever the command runs."""
    recipe = parse_recipe(GOOD, folder=tmp_path)
    assert recipe.data.file == str(tmp_path / "data.csv")
    assert recipe.teacher.weights == str(tmp_path / "model")


def test_a_data_folder_moves_the_data_alone(tmp_path: Path) -> None:
    """`--data` changes where data are looked for, not where weights are."""
    recipe = parse_recipe(GOOD, folder=tmp_path, data_folder=tmp_path / "elsewhere")
    assert recipe.data.file == str(tmp_path / "elsewhere" / "data.csv")
    assert recipe.teacher.weights == str(tmp_path / "model")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("teacher.weight", "x", r"teacher\.weight: there is no such key"),
        ("variants.1.parent", "nobody", "not above it"),
        ("variants.1.name", "student", "two variants are named"),
        ("variants.0.name", "cascade", "meaning of its own"),
        ("variants.0.name", "data", "'data': the name has a meaning of its own"),
        ("variants.0.name", "a.table", "meaning of its own"),
        ("teacher.name", "data", "meaning of its own"),
        ("variants.1.kind", "magic", "variants.1"),
        ("variants.0.layers", [], "layers"),
        ("data.train", "train.csv", "not both"),
        ("data.shares", {"train": 0.9, "test": 0.2}, "sum to"),
        ("data.shares", {"train": 0.9, "validation": 0.1, "tune": 0, "certify": 0, "test": 0}, "above 0"),
        ("data.slices", {"x": {}}, "a slice rule needs"),
        ("data.slices", {"x": {"matches": "("}}, r"data\.slices\.x\.matches: not a regular expression"),
        ("data.slices", {"x": {"min_words": 5, "max_words": 4}}, "`min_words` is above `max_words`"),
        ("variants.0.distillation", {"layer_map": [9]}, "`layer_map` needs"),
        ("variants.1", {"name": "l", "kind": "linear", "augment": {}}, "`augment` needs a `parent`"),
        ("variants.1", {"name": "l", "kind": "linear", "temperatures": [4]}, "`temperatures` needs a"),
        ("variants.1", {**LINEAR, "temperatures": []}, "temperatures"),
        ("variants.1", {**LINEAR, "shortest": 4, "longest": 2}, "`shortest` is above `longest`"),
        ("variants.1", {**LINEAR, "word_orders": 0, "longest": 0}, "nothing to learn from"),
        ("data", {"train": "a", "validation": "b", "test": "c", "shares": SHARES}, "`shares` goes with"),
        ("data.stretches", 2, "needs `max_words`"),
        ("teacher.training", {"epochs": -1}, "greater than or equal to 0"),
        ("schema", 2, "schema"),
    ],
)
def test_broken_rules_are_named(path: str, value: Any, said: str) -> None:
    """Every broken rule is a RecipeError that names the file and the key."""
    with pytest.raises(RecipeError, match=said) as caught:
        parse_recipe(changed(path, value), where="my.yaml")
    assert caught.value.where == "my.yaml"


def test_a_quantized_variant_is_nobodys_parent() -> None:
    """Training from an INT8 graph is refused when the recipe is read, not hours later."""
    raw = deepcopy(GOOD)
    raw["variants"].append({"name": "x", "kind": "distil", "parent": "student-int8", "layers": [0]})
    with pytest.raises(RecipeError, match="cannot be a parent"):
        parse_recipe(raw)


@pytest.mark.parametrize("name", ["fast", "student"])
def test_chains_of_one_name_are_refused(name: str) -> None:
    """Two latency parts of one name would share a table, and a chain named as a variant hides it."""
    chain = {"name": name, "kind": "latency", "parent": "student"}
    raw = deepcopy(GOOD)
    raw["variants"] += [{**chain, "speed_ups": [2]}, {**chain, "speed_ups": [3]}]
    with pytest.raises(RecipeError, match=f"two variants are named '{name}'"):
        parse_recipe(raw)
    if name == "student":
        with pytest.raises(RecipeError, match="two variants are named 'student'"):
            parse_recipe({**raw, "variants": raw["variants"][:3]})


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    """A missing file, broken YAML and YAML of another kind are told apart."""
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(RecipeError, match="not readable YAML"):
        load_recipe(tmp_path / "broken.yaml")
    for unreadable in ("a: 2024-02-30", "[" * 20_000, "data: {file: a}\nname: x\ndata: {file: b}\n"):
        (tmp_path / "broken.yaml").write_text(unreadable)
        with pytest.raises(RecipeError, match="not readable YAML"):
            load_recipe(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match="mapping"):
        load_recipe(tmp_path / "list.yaml")


def test_an_address_is_no_path_and_its_password_is_not_shown(tmp_path: Path) -> None:
    """Addresses are refused before anything is read; a link that leads to itself is left to the reader."""
    for path in ("data.file", "teacher.weights"):
        with pytest.raises(
            RecipeError, match=r"https://…@example\.org/x is an address(?s:.*)download"
        ) as caught:
            parse_recipe(changed(path, "https://ann:secret@example.org/x"))
        assert "secret" not in str(caught.value)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    recipe = parse_recipe(changed("data.file", "loop.csv"), folder=tmp_path)
    assert recipe.data.file == str(tmp_path / "loop.csv")


@pytest.mark.parametrize("path", ["a\0b", "a\ud800"])
def test_what_no_file_can_be_named_is_refused(path: str) -> None:
    """YAML can write characters that no path can have."""
    with pytest.raises(RecipeError, match="no path that a file can have"):
        parse_recipe(changed("data.file", path))


def test_shipped_recipes_are_valid() -> None:
    """Every recipe in the package can be read, and holds a linear and a quantized stage."""
    shipped = [p for p in (resources.files("sluicegate") / "recipes").iterdir() if p.name.endswith(".yaml")]
    assert {p.name for p in shipped} >= {"demo.yaml", "demo-quick.yaml"}
    for path in shipped:
        kinds = {variant.kind for variant in load_recipe(Path(str(path))).variants}
        assert {"linear", "quantize", "distil"} <= kinds
