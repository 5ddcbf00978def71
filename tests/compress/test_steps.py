"""The key of a step names all code that decides its result, the serving runtime's included."""

from __future__ import annotations

from importlib import resources

import pytest
import yaml

from compress.code_version import code_of
from compress.network_kinds import NETWORKS
from compress.recipes.recipe import Target
from compress.steps import KINDS

SERVING = {
    "runtime.load",
    "runtime.onnx_model",
    "runtime.wordpiece",
    "runtime.ngrams.encoder",
    "runtime.ngrams.linear",
}
TRAINED = ("teacher", "distil", "cnn", "twin", "prune", "magnitude", "latency", "qat")


def test_the_runtime_that_predicts_is_in_the_key_of_measurements() -> None:
    """Predictions behind a certificate are made again when the code that serves them changes."""
    wanted = SERVING | {
        "router.tune.calibrate",
        "compress.measurement.peak_memory",
        "compress.measurement.measure",
        "runtime.energy",
    }
    assert wanted <= set(KINDS["measure"].code)


@pytest.mark.parametrize("kind", TRAINED)
def test_how_networks_train_is_in_the_key_of_training_and_how_they_are_served_is_not(kind: str) -> None:
    """A change of the training loop trains again; a change of the serving runtime only measures again."""
    code = set(KINDS[kind].code)
    assert {"compress.learning.training", "compress.networks.models", "runtime.wordpiece"} <= code
    assert (
        not {"runtime.onnx_model", "compress.measurement.measure", "compress.assemble", "compress.pipeline"}
        & code
    )


READERS = (
    *("twin", "vocabulary", "magnitude", "latency", "latency-table", "qat", "prune"),
    *("export", "quantize", "image-quantize", "channels", "linear", "candidate"),
)


@pytest.mark.parametrize("kind", READERS)
def test_every_network_is_in_the_key_of_steps_that_read_one(kind: str) -> None:
    """Networks are found by name; the modules behind the names count as if they were imported."""
    assert {place.partition(":")[0] for place in NETWORKS.values()} <= set(KINDS[kind].code)


def test_libraries_that_compute_are_in_the_key() -> None:
    """Another numpy reads and trains again, another scipy solves a latency table again."""
    assert {"numpy", "pyarrow"} <= set(KINDS["data"].packages)
    assert all("numpy" in KINDS[kind].packages for kind in TRAINED)
    assert {"numpy", "scipy"} <= set(KINDS["latency-table"].packages)


def test_a_module_brings_those_that_it_imports() -> None:
    """Imports are followed to any depth, inside functions too, and other libraries are left out."""
    code = code_of("compress.learning.linear_step")
    assert {
        "compress.learning.linear",
        "runtime.ngrams.linear",
        "router.tune.calibrate",
        "compress.learning.training",
    } <= set(code)
    assert all(name.partition(".")[0] in {"compress", "router", "runtime"} for name in code)
    assert "compress.datasets.data" not in code


def test_nothing_is_measured_on_the_test_split() -> None:
    """The length mix comes from validation, by default and in both recipes of the demo."""
    assert Target().lengths == "validation"
    for name in ("demo.yaml", "demo-quick.yaml"):
        recipe = yaml.safe_load((resources.files("sluicegate") / "recipes" / name).read_text())
        assert recipe["target"]["lengths"] == "validation"
        assert {variant["kind"] for variant in recipe["variants"]} == {
            "distil",
            "prune",
            "quantize",
            "linear",
        }
