"""Searches recipes: short trainings chosen by NSGA-II, full ones for what survives, a family of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.datasets.data import DATA, read_dataset
from compress.exploration.candidate import is_its_own, reason_of
from compress.exploration.explore import explore
from compress.exploration.genome import Candidate, TeacherSize, quantize_part, space_of, training_part
from compress.exploration.pareto import Point, non_dominated, spread
from compress.exploration.trials import Rates, Trials, teacher_size
from compress.lineage import lineages_of
from compress.measurement.measure_step import HELD_OUT, LOGITS
from compress.pipeline import Run, run_pipeline, running
from compress.plan import DATA_STEP, plan_steps
from compress.progress import Progress
from compress.recipes.parts import VariantPart
from compress.recipes.recipe import Recipe, dump_recipe
from compress.recipes.search_part import SearchPart
from compress.standing import select
from compress.steps import Step
from contract.errors import RecipeError, SluiceError, TargetNotMet
from contract.family import Family
from contract.files import write_bytes, write_json

SEARCHED = "searched.yaml"
RECORD = "search.json"
PREFIX = "search-"
COMPARED = ".compare"


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        family: teacher, the recipe's own variants, and those kept of the search.
        recipe: makes that family without a search.
        tried: every candidate that worked, by variant name, after its short training.
        trained: the survivors, after their full training.
        kept: variants of the search that are in the family, fastest first.
        failed: why other candidates could not be made, or survivors not trained in full, by variant name.
        seconds: spent on short trainings, over all calls.
    """

    family: Family
    recipe: Recipe
    tried: Mapping[str, Point]
    trained: Mapping[str, Point]
    kept: tuple[str, ...]
    failed: Mapping[str, str]
    seconds: float


def run_search(
    recipe: Recipe, out: Path, *, minutes: float | None = None, progress: Progress | None = None
) -> Searched:
    """Explore recipes and make the family of the best.

    Every candidate is trained briefly and judged on the validation split: accuracy, and latency and CPU time
    relative to the teacher's graph, timed in turns. The non-dominated of all candidates are trained in full
    and measured like any variant; those that then are non-dominated, the teacher and the recipe's own
    variants included, become the family's; all of these are timed anew in turns with the teacher's graph,
    on validation texts. The test split decides nothing.

    May be interrupted at any point: candidates are steps, and the next call takes the same way through those
    that are finished. The recipe that was found is written to `searched.yaml` in the family's folder, all
    candidates to `search.json`. When no candidate is worth keeping the family is that of the recipe alone.

    Args:
        recipe: what to start from; its `search` says where to look.
        out: the family's folder.
        minutes: time for the short trainings in place of the recipe's; those of earlier calls count.
        progress: told about every step.

    Raises:
        RecipeError, DataError, EnvironmentProblem: what the recipe asks for is wrong or missing.
        TargetNotMet: no candidate could be made.
        SluiceError: a step failed, other than a candidate's own.
    """
    part = recipe.search or SearchPart()
    if minutes is not None:
        part = part.model_copy(update={"minutes": minutes})
    own = tuple(lineages_of(recipe))
    for name in own:
        if name.startswith(PREFIX):
            raise RecipeError(
                f"variant {name!r}: names that start with {PREFIX!r} are for what the search finds",
                hint="give it another name, or run the recipe without --search",
            )
    with running(recipe, out, progress) as run:
        teacher, steps = recipe.teacher.name, plan_steps(recipe.model_copy(update={"search": part}))
        for step in select(steps, teacher):
            run.make(step)
        size = teacher_size(run.finished[teacher])
        space = space_of(part.space, size)
        for step in steps:
            if step.name not in run.finished:
                run.make(step)
        rates = Rates.of(run.finished[f"{teacher}.measure"].result)
        trials = Trials(run, part, size, rates)
        explore(
            space,
            part,
            recipe.seed,
            trials,
            stop=lambda: trials.seconds >= part.minutes * 60,
        )
        if not trials.points:
            raise TargetNotMet(
                f"no candidate of the search could be made: {next(iter(trials.failed.values()))}"
            )
        compared = {name: _compared(run, steps, name, rates) for name in own}
        chosen = _survivors(trials, part, compared[teacher].accuracy)
        trained, failed = _train(run, part, size, chosen, rates)
        least = compared[teacher].accuracy - part.accuracy_drop
    able = {name: point for name, point in trained.items() if point.accuracy >= least}
    kept = tuple(name for name in non_dominated({**compared, **able}) if name in able)
    final = _with_variants(recipe, part, size, [trials.candidates[name] for name in kept])
    family = run_pipeline(final, out, progress=progress)
    write_bytes(out / SEARCHED, f"# Found by `sluice compress --search`.\n{dump_recipe(final)}".encode())
    found = Searched(family, final, trials.points, trained, kept, {**trials.failed, **failed}, trials.seconds)
    write_json(out / RECORD, _record(recipe, part, rates, found))
    return found


def validation_accuracy(run: Run, name: str) -> float:
    """Return the accuracy, on the validation split, of a variant whose measurement is finished."""
    held = read_dataset(run.finished[DATA_STEP].file(DATA)).of(*HELD_OUT)
    rows = held.rows("validation")
    logits = np.load(run.finished[f"{name}.measure"].file(LOGITS))
    return float((logits[rows].argmax(1) == held.targets[rows]).mean())


def _survivors(trials: Trials, part: SearchPart, teacher: float) -> list[Candidate]:
    """Return which candidates are worth a full training, fastest first."""
    least = teacher - part.short_accuracy_drop
    able = {name: point for name, point in trials.points.items() if point.accuracy >= least}
    front = {name: able[name] for name in non_dominated(able)}
    return [trials.candidates[name] for name in spread(front, part.survivors)]


def _train(
    run: Run, part: SearchPart, size: TeacherSize, chosen: Sequence[Candidate], rates: Rates
) -> tuple[dict[str, Point], dict[str, str]]:
    """Train candidates in full and measure them; return what they came to, and why others failed."""
    steps = plan_steps(_with_variants(run.recipe, part, size, chosen))
    found: dict[str, Point] = {}
    failed: dict[str, str] = {}
    broken: dict[str, str] = {}
    for candidate in chosen:
        reason = _made(run, select(steps, f"{candidate.name}.measure"), broken)
        if reason is not None:
            failed[candidate.name] = reason
        else:
            found[candidate.name] = _compared(run, steps, candidate.name, rates)
    return found, failed


def _made(run: Run, steps: Sequence[Step], broken: dict[str, str]) -> str | None:
    """Make steps in turn; return why the first that fails did, if one does, and note it under its name.

    Raises:
        SluiceError: what went wrong lies with the machine, not with the candidate.
    """
    for step in steps:
        if step.name not in run.finished | broken:
            try:
                run.make(step)
            except SluiceError as problem:
                if not is_its_own(problem):
                    raise
                broken[step.name] = reason_of(problem)
        if step.name in broken:
            return broken[step.name]
    return None


def _compared(run: Run, steps: Sequence[Step], name: str, rates: Rates) -> Point:
    """Return what a measured variant gives and costs, timed in turns with the teacher.

    Measurements are not compared: they lie hours apart, and may have the lengths of test texts.
    """
    recipe = run.recipe
    accuracy, reference = validation_accuracy(run, name), f"{recipe.teacher.name}.export"
    if name == recipe.teacher.name:
        return rates.point(accuracy)
    (measured,) = (step for step in steps if step.name == f"{name}.measure")
    target = {**recipe.target.for_choices(), "seconds": recipe.target.seconds}
    found = run.make(
        Step(
            f"{name}{COMPARED}",
            "comparison",
            f"{name}: compare with the teacher",
            {"target": target, "seed": recipe.seed},
            {"data": DATA_STEP, "artifact": measured.inputs["artifact"], "reference": reference},
        )
    )
    return rates.point(accuracy, found.result["time_ratio"], found.result["cpu_ratio"])


def _with_variants(
    recipe: Recipe, part: SearchPart, size: TeacherSize, chosen: Sequence[Candidate]
) -> Recipe:
    """Return the recipe with the candidates as variants, and without its search."""
    variants: dict[str, VariantPart] = {}
    for candidate in chosen:
        trained = training_part(candidate.shape, size, part, parent=recipe.teacher.name)
        variants.setdefault(trained.name, trained)
        lower = quantize_part(candidate, parent=trained.name)
        if lower is not None:
            variants[lower.name] = lower
    names = {candidate.name for candidate in chosen}
    return recipe.model_copy(
        update={
            "variants": (*recipe.variants, *variants.values()),
            "unlisted": (*recipe.unlisted, *(name for name in variants if name not in names)),
            "search": None,
        }
    )


def _record(recipe: Recipe, part: SearchPart, rates: Rates, found: Searched) -> dict[str, Any]:
    def told(point: Point) -> dict[str, float]:
        return {"accuracy": point.accuracy, "latency_ms": point.latency_ms, rates.unit: point.energy}

    return {
        "seed": recipe.seed,
        "split": "validation",
        "seconds": found.seconds,
        "search": part.model_dump(mode="json"),
        "candidates": [
            {
                "name": name,
                "short": told(point),
                "full": told(found.trained[name]) if name in found.trained else None,
                "kept": name in found.kept,
            }
            for name, point in sorted(found.tried.items(), key=lambda item: item[1].latency_ms)
        ],
        "failed": dict(found.failed),
    }
