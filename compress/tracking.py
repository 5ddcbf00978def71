"""A family told to MLflow: one run for the family, one nested in it for every variant."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from compress.recipes.parts import made_by
from compress.recipes.recipe import Recipe, dump_recipe, load_recipe
from contract.costs import COSTS
from contract.errors import EnvironmentProblem, RecipeError
from contract.family import MANIFEST, Family, Variant
from contract.predictions import PREDICTIONS
from contract.urls import without_password

T = TypeVar("T")

RECIPE = "recipe.yaml"
FAMILY_TAG = "sluicegate.family"
LONGEST_VALUE = 6000
LONGEST_KEY = 250
PER_REQUEST = 100
# Artifacts of the family's folder that are small enough to go along; the variants' own go where asked for.
SMALL = (MANIFEST, PREDICTIONS, COSTS, "frontier.svg")
SEARCHED = "searched.yaml"
OF_A_SEARCH = ("search.json", SEARCHED)


class Tracker:
    """Logs families to one MLflow store, into the experiment that has the family's name.

    Made before the work starts, so that a store that cannot be reached is known then. MLflow's telemetry is
    off unless MLFLOW_DISABLE_TELEMETRY is set otherwise.

    Args:
        uri: of a tracking server (http://...) or a local database (sqlite:///mlflow.db).

    Raises:
        EnvironmentProblem: when MLflow is not installed, or the store cannot be used.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ):
            os.environ.setdefault(name, value)
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise EnvironmentProblem(
                "--mlflow needs MLflow", hint="pip install 'sluicegate[mlflow]'"
            ) from None
        with self._named():
            self._client = MlflowClient(tracking_uri=uri)
            self._client.search_experiments(max_results=1)

    @property
    def address(self) -> str:
        """The store's, without a user's name and password."""
        return without_password(self._uri)

    def log(self, family: Family, recipe: Recipe, folder: Path, *, models: bool = False) -> str:
        """Log a family and return the id of its run; a family that is there already is not logged twice.

        Models that were not uploaded with it are added to the runs that are there.

        The parent run has the recipe's settings (keys joined by dots) as parameters, and manifest, recipe,
        predictions and costs as artifacts. Each variant's run has the settings of its own part and its
        figures as metrics, in the units of the manifest; what is unknown is left out.

        Args:
            family: as written to `folder`.
            recipe: that it was made from.
            folder: the family's.
            models: upload the variants' own artifacts too.

        Raises:
            EnvironmentProblem: when the store cannot be used.
        """
        with self._named():
            experiment = self._experiment(family.name)
            known = self._client.search_runs(
                [experiment],
                f"tags.\"{FAMILY_TAG}\" = '{family.sha256}' and attributes.status = 'FINISHED'",
                max_results=1,
            )
            if known:
                there = str(known[0].info.run_id)
                if models:
                    self._add_models(there, experiment, family, folder)
                return there
            tags = {FAMILY_TAG: family.sha256, "sluicegate.teacher": family.teacher}
            with self._run(experiment, family.name, tags) as run:
                settings = recipe.model_dump(mode="json", by_alias=True, exclude={"variants"})
                self._write(run, flat({**settings, "variants": list(family.names)}), family_metrics(family))
                small = (*SMALL, *OF_A_SEARCH) if _was_searched(folder, recipe) else SMALL
                self._upload(run, folder, [name for name in small if (folder / name).is_file()])
                with tempfile.TemporaryDirectory() as scratch:
                    (Path(scratch) / RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")
                    self._upload(run, Path(scratch), [RECIPE])
                for variant in family.variants:
                    self._log_variant(run, experiment, variant, recipe, folder, models=models)
            return run

    def _log_variant(
        self, parent: str, experiment: str, variant: Variant, recipe: Recipe, folder: Path, *, models: bool
    ) -> None:
        tags = {
            "mlflow.parentRunId": parent,
            "sluicegate.passes": "no" if variant.failed_limits else "yes",
            "sluicegate.failed_limits": "; ".join(variant.failed_limits),
        }
        with self._run(experiment, variant.name, tags) as run:
            self._write(run, flat(settings_of(variant, recipe)), variant_metrics(variant))
            if models:
                self._upload(run, folder, [variant.artifact.path])

    def _add_models(self, parent: str, experiment: str, family: Family, folder: Path) -> None:
        """Upload to the variants' runs the artifacts that they lack."""
        nested = self._client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
        by_name = {run.info.run_name: str(run.info.run_id) for run in nested}
        for variant in family.variants:
            run, path = by_name.get(variant.name), variant.artifact.path
            if run is not None and not self._has(run, path):
                self._upload(run, folder, [path])

    def _has(self, run: str, path: str) -> bool:
        inside = PurePosixPath(path).parent.as_posix()
        listed = self._client.list_artifacts(run, None if inside == "." else inside)
        return any(item.path == path for item in listed)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    @contextmanager
    def _run(self, experiment: str, name: str, tags: Mapping[str, str]) -> Iterator[str]:
        """A run that ends FINISHED, or FAILED when it was left by an exception."""
        run = str(self._client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)
        try:
            yield run
        except BaseException:
            self._client.set_terminated(run, status="FAILED")
            raise
        self._client.set_terminated(run, status="FINISHED")

    def _write(self, run: str, parameters: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric, Param

        given = [Param(key, value[:LONGEST_VALUE]) for key, value in safe_keys(parameters).items()]
        now = self._client.get_run(run).info.start_time
        figures = [Metric(key, value, now, 0) for key, value in safe_keys(metrics).items()]
        for start in range(0, max(len(given), len(figures)), PER_REQUEST):
            part = slice(start, start + PER_REQUEST)
            self._client.log_batch(run, params=given[part], metrics=figures[part])

    def _upload(self, run: str, folder: Path, names: list[str]) -> None:
        for name in names:
            inside = Path(name).parent.as_posix()
            self._client.log_artifact(run, str(folder / name), None if inside == "." else inside)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn what MLflow raises into an error that names its store; neither tells a password."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as problem:
            message = without_password(str(problem).strip().splitlines()[0])
            raise EnvironmentProblem(
                f"MLflow at {self.address}: {message}",
                hint="--mlflow sqlite:///mlflow.db, or the address of a tracking server",
            ) from None


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as strings by dotted key; lists are one value, what is None is left out."""
    found: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            found |= flat(item, f"{prefix}{key}.")
        elif isinstance(item, list | tuple):
            found[f"{prefix}{key}"] = ", ".join(map(str, item))
        elif item is not None:
            found[f"{prefix}{key}"] = str(item)
    return found


def _was_searched(folder: Path, recipe: Recipe) -> bool:
    """Whether the search whose record lies in the folder found this recipe; it may be an earlier one."""
    try:
        return load_recipe(folder / SEARCHED) == recipe
    except RecipeError:
        return False


def settings_of(variant: Variant, recipe: Recipe) -> dict[str, Any]:
    """Return what decided a variant: the settings of the part that makes it, and where it comes from."""
    part: dict[str, Any] = {}
    for one in recipe.variants:
        if variant.name in made_by(one):
            part = one.model_dump(mode="json", exclude={"name"})
    return part | {
        "parent": variant.parent,
        "technique": variant.technique or variant.kind,
        "precision": variant.precision,
        "batching": variant.batching,
        "sha256": variant.artifact.sha256,
        "energy_provenance": variant.energy_provenance,
    }


def variant_metrics(variant: Variant) -> dict[str, float]:
    """Return the figures of a variant by the manifest's names; what is unknown is left out.

    Latencies are named by batch and callers beyond one: latency_p50_ms, latency_p50_ms_batch8_callers4.
    """
    fields = (
        "accuracy", "accuracy_delta", "macro_f1", "macro_f1_delta", "speed_up", "parameters",
        "flops_per_text", "sparsity", "compressed_bytes", "temperature", "ece_before", "ece_after",
        "cpu_seconds_per_1k", "peak_memory_bytes", "energy_wh_per_1k", "usd_per_1k",
    )  # fmt: skip
    found: dict[str, float | None] = {name: getattr(variant, name) for name in fields}
    found["artifact_bytes"] = variant.artifact.bytes
    for measured in variant.latency:
        words = (f"_batch{measured.batch}" if measured.batch > 1 else "") + (
            f"_callers{measured.concurrency}" if measured.concurrency > 1 else ""
        )
        found[f"latency_p50_ms{words}"] = measured.p50_ms
        found[f"latency_p99_ms{words}"] = measured.p99_ms
    for name, quality in variant.per_slice.items():
        found[f"slice.{name}.accuracy"] = quality.accuracy
        found[f"slice.{name}.accuracy_delta"] = quality.accuracy_delta
    if variant.verification is not None:
        found["label_agreement"] = variant.verification.label_agreement
        found["max_logit_error"] = variant.verification.max_logit_error
    if variant.training is not None:
        found["training_seconds"] = variant.training.seconds
        found["training_energy_wh"] = variant.training.energy_wh
        found["training_gco2e"] = variant.training.gco2e
    return {name: float(value) for name, value in found.items() if value is not None}


def family_metrics(family: Family) -> dict[str, float]:
    """Return the figures of a whole family."""
    others = family.judged
    energies = [step.energy_wh for step in family.steps]
    found = {
        "variants": float(len(family.variants)),
        "variants_passing": float(sum(not variant.failed_limits for variant in others)),
        "steps_seconds": sum(step.seconds for step in family.steps),
    }
    if energies and None not in energies:
        found["steps_energy_wh"] = sum(energy or 0.0 for energy in energies)
    return found


def safe_keys(values: Mapping[str, T]) -> dict[str, T]:
    """Return values by keys that MLflow takes, every one different.

    MLflow allows word characters, dots, slashes, dashes and spaces, in what must also be a plain relative
    path, at most LONGEST_KEY characters. A key that has to change gets some of its hash where another key
    would then be the same, ignoring case, as some databases do.
    """
    plain = {name: _key(name) for name in values}
    count = Counter(key.lower() for key in plain.values())
    found = {}
    for name, value in values.items():
        key = plain[name]
        if count[key.lower()] > 1:
            mark = hashlib.sha256(name.encode()).hexdigest()[:8]
            key = f"{key[: LONGEST_KEY - 9]}-{mark}"
        found[key] = value
    return found


def _key(name: str) -> str:
    """Return a name in the characters that MLflow allows; slashes would make folders of it."""
    return re.sub(r"[^\w. -]", "_", name)[:LONGEST_KEY]
