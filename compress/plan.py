"""From a recipe to steps, and from steps to the keys that say which of them are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compress.parts import LinearPart, QuantizePart
from compress.recipe import SPLITS, DataPart, Recipe
from compress.sources import package_path
from compress.steps import KINDS, Step, versions_of
from compress.store import Finished, Store, code_version
from compress.weights import fingerprint
from contract.errors import RecipeError
from contract.files import sha256_of_file, sha256_of_folder, sha256_of_json
from contract.machine import Machine

DATA_STEP = "data"


@dataclass(frozen=True)
class Planned:
    """A step and where it stands: its key once all inputs are done, and its result if it is done itself."""

    step: Step
    key: str | None
    finished: Finished | None


def plan_steps(recipe: Recipe) -> tuple[Step, ...]:
    """Return the steps of a recipe in an order that can be run.

    Every variant ends in a step `NAME.measure`; networks have a step `NAME` that trains, and `NAME.export`.

    Raises:
        RecipeError, DataError, EnvironmentProblem: for weights or data that are not there.
    """
    teacher, hashes = recipe.teacher, _data_hashes(recipe.data)
    steps = [
        Step(
            DATA_STEP,
            "data",
            f"data: {recipe.data.file or recipe.data.train}",
            {"data": recipe.data.model_dump(mode="json", exclude=set(hashes)), "seed": recipe.seed},
            outside=hashes,
        ),
        Step(
            teacher.name,
            "teacher",
            f"{teacher.name}: fine-tune {Path(teacher.weights).name}",
            {"teacher": teacher.model_dump(mode="json", exclude={"weights"}), "seed": recipe.seed},
            {"data": DATA_STEP},
            {"weights": fingerprint(teacher.weights)},
        ),
        _export(teacher.name),
        _measure(recipe, teacher.name, f"{teacher.name}.export"),
    ]
    for variant in recipe.variants:
        config = {"variant": variant.model_dump(mode="json"), "seed": recipe.seed}
        inputs = {"data": DATA_STEP}
        if variant.parent is not None:
            inputs["parent"] = variant.parent
        if isinstance(variant, QuantizePart):
            inputs["graph"] = f"{variant.parent}.export"
        made = Step(variant.name, variant.kind, f"{variant.name}: {variant.kind}", config, inputs)
        steps.append(made)
        artifact = variant.name
        if not isinstance(variant, QuantizePart | LinearPart):
            steps.append(_export(variant.name))
            artifact = f"{variant.name}.export"
        steps.append(_measure(recipe, variant.name, artifact))
    return tuple(steps)


def _export(name: str) -> Step:
    return Step(
        f"{name}.export", "export", f"{name}: export and verify", {}, {"data": DATA_STEP, "parent": name}
    )


def _measure(recipe: Recipe, name: str, artifact: str) -> Step:
    config = {"target": recipe.target.model_dump(mode="json"), "seed": recipe.seed}
    return Step(
        f"{name}.measure",
        "measure",
        f"{name}: calibrate and measure",
        config,
        {"data": DATA_STEP, "artifact": artifact},
    )


def _data_hashes(part: DataPart) -> dict[str, str]:
    found = {}
    for name in ("file", *SPLITS):
        source = getattr(part, name)
        if source is None or source.startswith("hf:"):
            continue
        path = package_path(source) if source.startswith("package:") else Path(source)
        if path.is_dir():
            found[name] = sha256_of_folder(path)
        elif path.is_file():
            found[name] = sha256_of_file(path)
    return found


def key_of(step: Step, inputs: Mapping[str, Finished], machine: Machine) -> str:
    """Return the hash of all that decides a step's result: settings, inputs, code, versions, machine."""
    kind = KINDS[step.kind]
    return sha256_of_json(
        {
            "kind": step.kind,
            "config": dict(step.config),
            "outside": dict(step.outside),
            "inputs": {role: finished.digest for role, finished in inputs.items()},
            "code": code_version(kind.code),
            "packages": versions_of(kind.packages),
            "machine": [machine.cpu, machine.cores, machine.gpu] if kind.machine else None,
        }
    )


def inspect_plan(steps: tuple[Step, ...], store: Store, machine: Machine) -> tuple[Planned, ...]:
    """Return where every step stands; a step whose inputs are not done has no key yet."""
    found: dict[str, Planned] = {}
    for step in steps:
        inputs = {role: found[name].finished for role, name in step.inputs.items()}
        done = {role: finished for role, finished in inputs.items() if finished is not None}
        if len(done) < len(inputs):
            found[step.name] = Planned(step, None, None)
            continue
        key = key_of(step, done, machine)
        found[step.name] = Planned(step, key, store.find(step.name, key))
    return tuple(found.values())


def select(steps: tuple[Step, ...], only: str | None) -> tuple[Step, ...]:
    """Return the steps that `only` needs: a step, or all steps of a variant, with what comes before them.

    Raises:
        RecipeError: when there is no such step.
    """
    if only is None:
        return steps
    by_name = {step.name: step for step in steps}
    wanted = {name for name in by_name if name == only or name.partition(".")[0] == only}
    if not wanted:
        raise RecipeError(f"there is no step {only!r}", hint=f"one of: {', '.join(by_name)}")
    queue = list(wanted)
    while queue:
        for name in by_name[queue.pop()].inputs.values():
            if name not in wanted:
                wanted.add(name)
                queue.append(name)
    return tuple(step for step in steps if step.name in wanted)
