"""A family logged to MLflow reads back as it is, once, and nobody else is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from compress.recipes.recipe import Recipe, load_recipe, parse_recipe
from compress.tracking import FAMILY_TAG, RECIPE, Tracker, flat
from contract.errors import EnvironmentProblem
from contract.family import Family
from runtime.fake_family import write_fake_family


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A recipe whose variants have the names of the fake family's."""
    return parse_recipe(
        {
            "name": "fake",
            "seed": 7,
            "data": {"file": "data.csv"},
            "teacher": {"name": "fake-large", "weights": "package:weights"},
            "variants": [
                {"name": "fake-small", "kind": "distil", "parent": "fake-large", "layers": [0, 5]},
                {"name": "fake-other", "kind": "prune", "parent": "fake-large", "heads": 0.25},
            ],
        }
    )


class Logged:
    """A fake family in a local store, and MLflow's own client to read it with."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder / "family"
        self.folder.mkdir()
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.family: Family = write_fake_family(self.folder, rows=100)
        self.tracker = Tracker(self.uri)
        self.run = self.tracker.log(self.family, recipe, self.folder, models=True)
        from mlflow.tracking import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=self.uri)

    def nested(self) -> dict[str, Any]:
        """Return the runs inside the family's, by name."""
        experiment = self.client.get_run(self.run).info.experiment_id
        found = self.client.search_runs([experiment], f"tags.mlflow.parentRunId = '{self.run}'")
        return {run.info.run_name: run for run in found}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Logged:
    """The fake family, logged once."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return Logged(folder, recipe)


def test_parameters_read_back(logged: Logged) -> None:
    """The family's run has the recipe's settings by dotted key, each variant's those of its own part."""
    parameters = logged.client.get_run(logged.run).data.params
    assert parameters["seed"] == "7"
    assert parameters["teacher.training.learning_rate"] == "0.0002"
    assert parameters["data.shares.train"] == "0.5"
    assert parameters["variants"] == ", ".join(logged.family.names)
    nested = logged.nested()
    assert nested["fake-small"].data.params["layers"] == "0, 5"
    assert nested["fake-small"].data.params["distillation.temperature"] == "2.0"
    assert nested["fake-other"].data.params["heads"] == "0.25"
    assert nested["fake-large"].data.params["precision"] == "fp32"


def test_metrics_read_back(logged: Logged) -> None:
    """Every variant's figures are those of the manifest; what is unknown there is absent, not 0."""
    nested = logged.nested()
    assert set(nested) == set(logged.family.names)
    for variant in logged.family.variants:
        run = nested[variant.name]
        assert run.info.status == "FINISHED"
        figures, latency = run.data.metrics, variant.latency_at()
        assert figures["accuracy"] == variant.accuracy
        assert figures["artifact_bytes"] == variant.artifact.bytes
        assert latency is not None
        assert figures["latency_p50_ms"] == latency.p50_ms
        assert figures["latency_p99_ms"] == latency.p99_ms
        assert ("energy_wh_per_1k" in figures) == (variant.energy_wh_per_1k is not None)
    assert logged.client.get_run(logged.run).data.metrics["variants"] == len(logged.family.variants)


def test_artifacts_read_back(logged: Logged, recipe: Recipe, tmp_path: Path) -> None:
    """Manifest and predictions come back byte by byte, the recipe as one that loads, models where asked."""
    for name in ("family.json", "predictions.parquet"):
        got = Path(logged.client.download_artifacts(logged.run, name, str(tmp_path)))
        assert got.read_bytes() == (logged.folder / name).read_bytes()
    got = Path(logged.client.download_artifacts(logged.run, RECIPE, str(tmp_path)))
    assert yaml.safe_load(got.read_text())["schema"] == 1
    assert load_recipe(got).variants == recipe.variants
    small = logged.nested()["fake-small"].info.run_id
    assert [item.path for item in logged.client.list_artifacts(small)] == ["fake-small.json"]


def test_the_same_family_is_logged_once(logged: Logged, recipe: Recipe) -> None:
    """A second call finds the run that is there, by the family's hash."""
    assert logged.tracker.log(logged.family, recipe, logged.folder) == logged.run
    experiment = logged.client.get_run(logged.run).info.experiment_id
    tag = f"tags.\"{FAMILY_TAG}\" = '{logged.family.sha256}'"
    assert len(logged.client.search_runs([experiment], tag)) == 1


def test_nothing_is_imported_early_and_nobody_is_told(logged: Logged) -> None:
    """Importing the module loads no MLflow, and logging opens no connection and starts no telemetry."""
    code = (
        "import socket, sys, compress.tracking\n"
        "assert 'mlflow' not in sys.modules\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = lambda *a, **k: 1 / 0\n"
        "tracker = compress.tracking.Tracker(sys.argv[1])\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "print(get_telemetry_client())"
    )
    quiet = {"CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"}
    done = subprocess.run(
        [sys.executable, "-c", code, logged.uri],
        env={name: value for name, value in os.environ.items() if name not in quiet},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"


def test_a_store_that_mlflow_refuses_is_named(tmp_path: Path) -> None:
    """A plain folder, which MLflow no longer keeps runs in, is refused with what to give instead."""
    with pytest.raises(EnvironmentProblem, match=r"sqlite:///mlflow\.db"):
        Tracker(f"file:{tmp_path / 'runs'}")


def test_without_the_extra_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLflow is not installed the error says what to install."""
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'sluicegate\[mlflow\]'"):
        Tracker("sqlite:///mlflow.db")


def test_settings_are_flattened() -> None:
    """Nested settings join by dots, lists are one value, and nothing stands for None."""
    assert flat({"a": {"b": 1, "c": None}, "d": [0, 5]}) == {"a.b": "1", "d": "0, 5"}
