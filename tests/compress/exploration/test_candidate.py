"""A candidate that cannot be made costs one attempt and ends nothing; a machine that lacks something does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.exploration.candidate import evaluate_candidate
from compress.exploration.genome import Candidate, Shape, TeacherSize, quantize_part, short_part
from compress.learning.distil import distil_student
from compress.networks.models import load_network
from compress.networks.network import Classifier
from compress.recipes.search_part import Precision, SearchPart
from compress.steps import Context, Result, Step
from contract.errors import EnvironmentProblem
from tests.compress.toy_steps import finished_network, toy_context, toy_dataset

SIZE = TeacherSize(depth=3, heads=4, neurons=48, hidden=32)


@pytest.fixture
def context(tmp_path: Path, network: Classifier) -> Context:
    """The step of one shape in two precisions, which share its training."""
    shape = Shape((0,))
    short = short_part(shape, SIZE, SearchPart(), parent="teacher")
    parts = {}
    precisions: tuple[Precision, ...] = ("fp32", "int8-dynamic")
    for precision in precisions:
        lower = quantize_part(Candidate(shape, precision), parent=short.name)
        made = [short] if lower is None else [short, lower]
        parts[precision] = [part.model_dump(mode="json") for part in made]
    teacher = finished_network(tmp_path / "teacher", network)
    outer = toy_context(
        tmp_path,
        {"name": "try-L0", "kind": "candidate"},
        toy_dataset(),
        parent=teacher,
        reference=teacher,
    )
    config = {"parts": parts, "target": outer.recipe.target.model_dump(mode="json"), "seed": 0}
    inputs = {"data": "data", "parent": "teacher", "reference": "teacher.export"}
    return replace(outer, step=Step("try-L0", "candidate", "try-L0", config, inputs))


def with_short(context: Context, **changes: Any) -> Context:
    """Return the step with other settings for its short training."""
    config = json.loads(json.dumps(context.step.config))
    for parts in config["parts"].values():
        parts[0]["training"] |= changes
    return replace(context, step=replace(context.step, config=config))


def test_a_training_that_diverges_is_not_repeated_for_the_next_precision(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What precisions share fails once, and every precision has the reason; the search goes on."""
    calls = []

    def counted(context: Context) -> Result:
        calls.append(context.step.name)
        return distil_student(context)

    monkeypatch.setattr("compress.learning.distil.distil_student", counted)
    found = evaluate_candidate(with_short(context, learning_rate=1e38, epochs=9))["precisions"]
    assert "the loss is not finite" in found["fp32"]["failed"]
    assert found["int8-dynamic"] == found["fp32"]
    assert calls == ["candidate"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_fails_alone(
    context: Context, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Weights that the last step of a training ruined are found by the export, and end one candidate."""

    def ruined(context: Context) -> Result:
        result = distil_student(context)
        network = load_network(context.folder)
        with torch.no_grad():
            next(iter(network.parameters())).fill_(value)
        network.save(context.folder)
        return result

    monkeypatch.setattr("compress.learning.distil.distil_student", ruined)
    found = evaluate_candidate(context)["precisions"]
    assert "logits are not finite" in found["fp32"]["failed"]
    assert found["int8-dynamic"] == found["fp32"]


def test_a_failure_that_nobody_foresaw_fails_the_candidate(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks inside a candidate is its reason, so that a resumed search passes it by."""

    def break_down(context: Context) -> Result:
        raise ValueError("cannot convert float NaN to integer")

    monkeypatch.setattr("compress.learning.distil.distil_student", break_down)
    failed = {"failed": "ValueError: cannot convert float NaN to integer"}
    assert evaluate_candidate(context)["precisions"] == {"fp32": failed, "int8-dynamic": failed}


@pytest.mark.parametrize(
    "problem",
    [
        EnvironmentProblem("onnxscript is not installed"),
        OSError("no space left on device"),
        MemoryError(),
        KeyboardInterrupt(),
    ],
)
def test_what_the_machine_lacks_is_not_held_against_a_candidate(
    context: Context, monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    """A missing package or a full disk ends the step, so that no candidate is stored as failed for good."""

    def lack(context: Context) -> Result:
        raise problem

    monkeypatch.setattr("compress.learning.distil.distil_student", lack)
    with pytest.raises(type(problem)):
        evaluate_candidate(context)
