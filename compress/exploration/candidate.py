"""One candidate of a search: trained briefly, exported, and compared with the teacher on validation texts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from compress.datasets.data import DATA, Dataset, read_dataset
from compress.exploration.comparison import both_loaded, compare
from compress.measurement.predict import predict_logits
from compress.plan import steps_of
from compress.recipes.parts import VariantPart
from compress.recipes.recipe import Target
from compress.steps import KINDS, Context, Result, Step
from compress.store import Finished
from contract.errors import EnvironmentProblem, SluiceError

# What these say is of the machine: a later try of the same candidate may well succeed.
OF_THE_MACHINE = (EnvironmentProblem, OSError, MemoryError, ImportError)


def evaluate_candidate(context: Context) -> Result:
    """Train a candidate, and return what each of its precisions gives and costs; no file is kept.

    The step's config holds `parts`: by precision the parts to make, each from the one before, the last of
    which is judged; parts that precisions share are made once. Inputs are `data`, `parent` (the teacher) and
    `reference` (the teacher's exported graph). A candidate that fails on the way, for any reason of
    its own, is `failed`, with the reason, in every precision that needs what failed.

    Raises:
        EnvironmentProblem, OSError, MemoryError, ImportError: this machine lacks something; that says
            nothing about the candidate.
    """
    parts: Mapping[str, list[Any]] = context.step.config["parts"]
    target = Target.model_validate(context.step.config["target"])
    data = read_dataset(context.inputs["data"].file(DATA))
    with tempfile.TemporaryDirectory(dir=context.folder) as scratch:
        maker = _Maker(context, Path(scratch))
        found = {}
        for precision, raw in parts.items():
            try:
                made = maker.make([TypeAdapter(VariantPart).validate_python(part) for part in raw])
                found[precision] = _judge(context, made, data, target)
            except Exception as problem:
                if not is_its_own(problem):
                    raise
                found[precision] = {"failed": reason_of(problem)}
    return {"precisions": found, "summary": _summary(found)}


def is_its_own(problem: Exception) -> bool:
    """Return whether what went wrong lies with a candidate, not with the machine that tries to make it."""
    return not isinstance(problem, OF_THE_MACHINE) and not isinstance(problem.__cause__, OF_THE_MACHINE)


def reason_of(problem: Exception) -> str:
    """Return what went wrong, for people."""
    return problem.message if isinstance(problem, SluiceError) else f"{type(problem).__name__}: {problem}"


class _Maker:
    """Makes parts in a scratch folder by the same steps that a recipe runs, without measuring them."""

    def __init__(self, context: Context, scratch: Path) -> None:
        self._context, self._scratch = context, scratch
        self._finished: dict[str, Finished] = {}
        self._failed: dict[str, Exception] = {}

    def make(self, parts: Sequence[VariantPart]) -> Finished:
        """Return the step that holds the artifact of the last part.

        Raises:
            Exception: a step failed, now or when it was made for other parts; none is run twice.
        """
        own, outer = self._context.step, self._context.inputs
        known = {"data": outer["data"], own.inputs["parent"]: outer["parent"]}
        for part in parts:
            for step in steps_of(self._context.recipe, part):
                if step.kind == "measure":
                    continue
                if step.name not in self._finished:
                    self._finished[step.name] = self._run(step, known | self._finished)
                last = self._finished[step.name]
        return last

    def _run(self, step: Step, known: Mapping[str, Finished]) -> Finished:
        if step.name in self._failed:
            raise self._failed[step.name]
        folder = self._scratch / step.name
        folder.mkdir()
        inputs = {role: known[name] for role, name in step.inputs.items()}
        context = replace(self._context, step=step, folder=folder, inputs=inputs)
        try:
            result = KINDS[step.kind].function()(context)
        except Exception as problem:
            self._failed[step.name] = problem
            raise
        return Finished(step.name, "", folder, {}, result, {})


def _judge(context: Context, made: Finished, data: Dataset, target: Target) -> dict[str, Any]:
    with both_loaded(context, made, data.labels, target) as (own, reference):
        validation = data.of("validation")
        right = predict_logits(own, validation.texts).argmax(1) == validation.targets
        texts = data.of(target.lengths).texts
        ratio = compare(own, reference, texts, seconds=target.seconds, seed=context.recipe.seed)
    return {"accuracy": float(right.mean()), "time_ratio": ratio.time, "cpu_ratio": ratio.cpu}


def _summary(found: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{precision} failed"
        if "failed" in result
        else f"{precision} {result['accuracy']:.1%} at {1 / result['time_ratio']:.1f} times the speed"
        for precision, result in found.items()
    )
