"""The key of a step names all code that decides its result, the serving runtime's included."""

from __future__ import annotations

import ast
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from compress.recipe import Target
from compress.steps import KINDS

# What passes through a step's key by its configuration or its inputs' hashes, or only carries a step out.
ELSEWHERE = {"compress.data", "compress.recipe", "compress.sources", "compress.steps", "compress.store"}


def imported(module: str) -> set[str]:
    """Return the modules of compress, router and runtime that a module imports, at any depth of its code."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name for name in names if name.partition(".")[0] in {"compress", "router", "runtime"}} - ELSEWHERE


def reached(module: str) -> set[str]:
    """Return a module and all that it imports, directly or not."""
    found, queue = {module}, [module]
    while queue:
        for name in imported(queue.pop()) - found:
            found.add(name)
            queue.append(name)
    return found


@pytest.mark.parametrize("kind", ["teacher", "distil", "prune", "export", "quantize"])
def test_all_code_that_a_step_reaches_is_in_its_key(kind: str) -> None:
    """Nothing that the step's module imports can change without the step being run again."""
    assert reached(KINDS[kind].run.partition(":")[0]) <= set(KINDS[kind].code)


def test_the_runtime_that_predicts_is_in_the_key_of_measurements() -> None:
    """Predictions behind a certificate are made again when the code that serves them changes."""
    fakes = {"runtime.fake"}
    assert reached("runtime.load") - fakes <= set(KINDS["measure"].code)
    assert {"router.calibrate", "compress.peak_memory", "runtime.energy"} <= set(KINDS["measure"].code)
    assert reached("runtime.linear") <= set(KINDS["linear"].code)
    assert {"router.calibrate", "runtime.wordpiece", "compress.training"} <= set(KINDS["linear"].code)


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
