"""Runs a recipe: every step once, its result kept, and the family written when all are there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.asking.outlook import Outlook, outlook_of
from compress.assemble import assemble_family
from compress.datasets.data import DATA, read_dataset
from compress.datasets.preparation import data_of
from compress.plan import TEXTS_STEP, plan_steps
from compress.progress import Progress, Silent
from compress.recipes.recipe import Recipe, load_recipe
from compress.standing import Planned, inspect_plan, key_of, select
from compress.steps import KINDS, Context, Step
from compress.store import Finished, Store
from contract.errors import SluiceError
from contract.family import Family
from contract.machine import Machine
from runtime.energy import EnergyMeter
from runtime.machine import describe_machine

STEPS_FOLDER = ".steps"


def run_pipeline(
    recipe: Recipe | Path,
    out: Path,
    *,
    progress: Progress | None = None,
    only: str | None = None,
    data_folder: Path | None = None,
) -> Family:
    """Make the family of a recipe in a folder, using every finished step that is there.

    May be interrupted at any point: a step's result appears in one rename, and the next call goes on from
    there. With `only`, just that step or variant and what it needs are run, beside the teacher, and the
    family holds the variants that are done.

    Args:
        recipe: a recipe, or the path of its file.
        out: the family's folder; finished steps are kept in a hidden folder inside it.
        progress: told about every step.
        only: name of a step or variant.
        data_folder: what the recipe's data paths are relative to, if not the recipe's folder.

    Raises:
        RecipeError, DataError, EnvironmentProblem: what the recipe asks for is wrong or missing.
        SluiceError: a step failed.
    """
    if isinstance(recipe, Path):
        recipe = load_recipe(recipe, data_folder=data_folder)
    steps = plan_steps(recipe)
    teacher = {step.name for step in select(steps, recipe.teacher.name)}
    wanted = {step.name for step in select(steps, only)}
    with running(recipe, out, progress) as run:
        for step in steps:
            if step.name in wanted | teacher:
                run.make(step)
        finished = dict(run.finished)
        if only is not None:
            for planned in inspect_plan(steps, run.store, run.machine):
                if planned.finished is not None:
                    finished[planned.step.name] = planned.finished
        return assemble_family(recipe, out, steps, finished, run.machine)


@contextmanager
def running(recipe: Recipe, out: Path, progress: Progress | None = None) -> Iterator[Run]:
    """Hold a family's finished steps for writing, and give what runs one step at a time.

    Raises:
        EnvironmentProblem: when another process holds them.
    """
    # Threads that spin while they wait take training from 0.8 to 2.7 s a step beside one busy process. Read
    # when OpenMP loads, so it is set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    store = Store(out / STEPS_FOLDER)
    with store.locked(), _Meter(recipe.target.watts_per_core) as meter:
        yield Run(recipe, store, describe_machine(), meter, progress or Silent())


def dry_run(
    recipe: Recipe | Path, out: Path, *, only: str | None = None, data_folder: Path | None = None
) -> tuple[Planned, ...]:
    """Return where every step of a recipe stands, running and writing nothing. Raises as `run_pipeline`."""
    if isinstance(recipe, Path):
        recipe = load_recipe(recipe, data_folder=data_folder)
    return inspect_plan(select(plan_steps(recipe), only), Store(out / STEPS_FOLDER), describe_machine())


def asking_ahead(recipe: Recipe, planned: Sequence[Planned]) -> Outlook | None:
    """Return what asking a remote teacher comes to before it starts; None where nobody is to be asked.

    Reads the data, and writes and asks nothing. Raises as `dry_run`.
    """
    steps = {item.step.name: item for item in planned}
    asking = steps.get(recipe.teacher.name)
    if recipe.teacher.remote is None or asking is None or asking.finished is not None:
        return None
    read = steps[TEXTS_STEP].finished
    return outlook_of(recipe, data_of(recipe) if read is None else read_dataset(read.file(DATA)))


class _Meter:
    """An energy meter that starts when it is first asked for: a run that reuses everything needs none."""

    def __init__(self, watts_per_core: float | None) -> None:
        self._watts_per_core = watts_per_core
        self._meter: EnergyMeter | None = None

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._meter is not None:
            self._meter.stop()

    def __call__(self) -> EnergyMeter:
        if self._meter is None:
            self._meter = EnergyMeter(watts_per_core=self._watts_per_core).start()
        return self._meter


@dataclass
class Run:
    """Steps of one recipe, run or reused one after the other; `finished` holds their results by name."""

    recipe: Recipe
    store: Store
    machine: Machine
    meter: _Meter
    progress: Progress

    def __post_init__(self) -> None:
        self.finished: dict[str, Finished] = {}

    def make(self, step: Step) -> Finished:
        """Run a step whose inputs are finished, or take its earlier result; a SluiceError if it fails."""
        inputs = {role: self.finished[name] for role, name in step.inputs.items()}
        key = key_of(step, inputs, self.machine)
        self.progress.begin(step.name, step.title)
        found = self.store.find(step.name, key)
        if found is not None:
            self.finished[step.name] = found
            self.progress.end(step.name, "reused", _summary(found))
            return found
        with self.store.working_folder(step.name, key) as folder:
            context = Context(
                recipe=self.recipe,
                step=step,
                folder=folder,
                inputs=inputs,
                update=lambda share, words="": self.progress.update(step.name, share, words),
                meter=self.meter,
                tell=lambda words: self.progress.tell(step.name, words),
            )
            result, cost = self._metered(step, context)
            self.finished[step.name] = self.store.finish(step.name, key, folder, result, cost)
        self.progress.end(step.name, "done", _summary(self.finished[step.name]))
        return self.finished[step.name]

    def _metered(self, step: Step, context: Context) -> tuple[Mapping[str, Any], dict[str, Any]]:
        kind = KINDS[step.kind]
        before = self.meter().joules()
        started = time.perf_counter()
        try:
            result = kind.function()(context)
        except SluiceError:
            raise
        except Exception as problem:
            raise SluiceError(f"the step {step.name!r} failed: {problem}") from problem
        cost: dict[str, Any] = {"seconds": round(time.perf_counter() - started, 3)}
        after = self.meter().joules()
        if before is not None and after is not None:
            cost |= {"energy_wh": (after - before) / 3600, "provenance": self.meter().provenance}
        return result, cost


def _summary(finished: Finished) -> str:
    """Return what a person wants to know of a finished step, in a few words."""
    result, words = finished.result, [f"{finished.cost['seconds']:.1f} s"]
    if "splits" in result:
        words.append(f"{sum(result['splits'].values()):,} texts, {len(result['labels'])} labels")
        words.append(f"{result['removed_duplicates']:,} duplicates left out")
        if result["removed_after_cut"]:
            words.append(f"{result['removed_after_cut']:,} more equal once cut")
        if result.get("removed_in_conflict"):
            words.append(f"{result['removed_in_conflict']:,} under several labels left out")
    if "summary" in result:
        words.append(result["summary"])
    if "verification" in result:
        words.append(f"agrees with its source on {result['verification']['label_agreement']:.1%}")
    words += result.get("notes", ())
    if result.get("latency"):
        words.append(f"p50 {result['latency'][0]['p50_ms']:.2f} ms")
    elif "parameters" in result:
        words.append(f"{result['parameters']:,} parameters")
    return ", ".join(words)
