"""`sluice inspect`: what a family holds, as tables."""

from __future__ import annotations

from pathlib import Path

import click

from contract.family import read_family
from report.family_parts import making_table, slices_table, steps_table
from report.family_tables import inspect_table
from report.tables import to_rich
from sluicegate.common import ANY_PATH, json_option, print_json, result_console

WIDE = 100


@click.command("inspect")
@click.argument("family", type=ANY_PATH)
@click.option("--slices", is_flag=True, help="Also accuracy per slice, with its delta to the teacher.")
@click.option("--steps", is_flag=True, help="Also how each variant was made and what each step cost.")
@json_option
def command(family: Path, slices: bool, steps: bool, as_json: bool) -> None:
    """Show every variant of a family: accuracy, speed, size, energy and cost. All hashes are checked.

    A terminal of 100 columns or more also shows tiers, macro-F1 and what each variant is best by.

    \b
    Example: sluice inspect sluicegate-demo/family
    Example: sluice inspect sluicegate-demo/family --slices --steps
    """
    manifest = read_family(family)
    if as_json:
        print_json(manifest.dump())
        return
    tables = [inspect_table(manifest, wide=result_console.width >= WIDE)]
    tables += [found for found in (slices_table(manifest),) if slices and found is not None]
    tables += [
        found for found in (making_table(manifest), steps_table(manifest)) if steps and found is not None
    ]
    for table in tables:
        result_console.print(to_rich(table))
