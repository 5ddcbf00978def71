"""Logging to MLflow adds models later, survives any slice name, and tells no password and no old search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.recipes.recipe import Recipe, dump_recipe, parse_recipe
from compress.tracking import LONGEST_KEY, Tracker, safe_keys
from contract.errors import EnvironmentProblem
from runtime.fake_family import write_fake_family


def recipe_of(**data: Any) -> Recipe:
    """Return a recipe whose variants have the names of the fake family's."""
    return parse_recipe(
        {
            "name": "fake",
            "data": {"file": "data.csv", **data},
            "teacher": {"name": "fake-large", "weights": "package:weights"},
            "variants": [{"name": "fake-small", "kind": "distil", "parent": "fake-large", "layers": [0]}],
        }
    )


def test_models_can_be_added_to_a_family_that_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for models later uploads each to the run that is there, once; slice names break nothing.

    The record of an earlier search stays out until the recipe is the one that it found.
    """
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "family"
    folder.mkdir()
    family = write_fake_family(folder, rows=40)
    recipe = recipe_of(slices={name: {"min_words": 2} for name in ("a:b", "a;b", "a/../b")})
    (folder / "search.json").write_text("{}")
    (folder / "searched.yaml").write_text(dump_recipe(recipe_of()))
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = tracker.log(family, recipe, folder)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    kept = client.get_run(run)
    assert sum("min_words" in key for key in kept.data.params) == 3
    assert "search.json" not in {item.path for item in client.list_artifacts(run)}
    found = client.search_runs(
        [kept.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run}'", max_results=100
    )
    nested = {one.info.run_name: one.info.run_id for one in found}
    assert not any(client.list_artifacts(one) for one in nested.values())

    assert tracker.log(family, recipe, folder, models=True) == run
    for variant in family.variants:
        assert [item.path for item in client.list_artifacts(nested[variant.name])] == [variant.artifact.path]
    monkeypatch.setattr(Tracker, "_upload", lambda *_: pytest.fail("uploaded twice"))
    tracker.log(family, recipe, folder, models=True)


def test_the_search_that_found_the_recipe_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family made from what a search found has that search's record with it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "family"
    folder.mkdir()
    recipe = recipe_of()
    (folder / "search.json").write_text("{}")
    (folder / "searched.yaml").write_text(dump_recipe(recipe))
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = tracker.log(write_fake_family(folder, rows=40), recipe, folder)

    from mlflow.tracking import MlflowClient

    listed = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}").list_artifacts(run)
    assert {"search.json", "searched.yaml"} <= {item.path for item in listed}


def test_every_key_stays_apart_from_the_others() -> None:
    """Names that differ only in what MLflow forbids, in case, or beyond its length keep keys of their own."""
    long = "x" * LONGEST_KEY
    names = ["a:b", "a;b", "A:b", "a/../b", "plain", f"{long}1", f"{long}2"]
    keys = safe_keys({name: name for name in names})
    assert len({key.lower() for key in keys}) == len(names)
    assert keys["plain"] == "plain"
    assert all(len(key) <= LONGEST_KEY and not set(key) & set(":;/") for key in keys)
    assert keys == safe_keys({name: name for name in names})


def test_an_unreachable_store_is_named_without_its_password() -> None:
    """The error that a store of bad address ends in has host but not password."""
    with pytest.raises(EnvironmentProblem) as caught:
        Tracker("nonsense://ann:secret@host/mlflow")
    assert "host" in str(caught.value)
    assert "secret" not in str(caught.value)
