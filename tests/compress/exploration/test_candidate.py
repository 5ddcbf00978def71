"""A candidate that cannot be made costs one attempt and ends nothing; a machine that lacks something does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compress.exploration.candidate import evaluate_candidate
from compress.exploration.genome import Candidate, Shape, TeacherSize, quantize_part, short_part
from compress.networks.network import Classifier
from compress.recipes.search_part import Precision, SearchPart
from compress.steps import Context, Result, Step
from contract.errors import EnvironmentProblem, SluiceError
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


def test_a_training_that_fails_is_not_repeated_for_the_next_precision(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What precisions share fails once, and every precision has the reason; the search goes on."""
    calls = []

    def diverge(context: Context) -> Result:
        calls.append(context.step.name)
        raise SluiceError("the loss is not finite")

    monkeypatch.setattr("compress.learning.distil.distil_student", diverge)
    result = evaluate_candidate(context)
    failed = {"failed": "the loss is not finite"}
    assert result["precisions"] == {"fp32": failed, "int8-dynamic": failed}
    assert calls == ["candidate"]


def test_what_the_machine_lacks_is_not_held_against_a_candidate(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing package ends the step, so that no candidate is stored as failed for good."""

    def lack(context: Context) -> Result:
        raise EnvironmentProblem("onnxscript is not installed")

    monkeypatch.setattr("compress.learning.distil.distil_student", lack)
    with pytest.raises(EnvironmentProblem, match="onnxscript"):
        evaluate_candidate(context)
