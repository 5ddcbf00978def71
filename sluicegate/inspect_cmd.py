"""`sluice inspect`: what a family holds, as tables."""

from __future__ import annotations

from pathlib import Path

import click

from contract.family import read_family
from report.family_parts import faithfulness_table, making_table, slices_table, steps_table
from report.family_tables import inspect_table
from report.tables import Table, to_rich
from sluicegate.common import ANY_PATH, json_option, print_json, result_console


@click.command("inspect")
@click.argument("family", type=ANY_PATH)
@click.option("--slices", is_flag=True, help="Also accuracy per slice, with its delta to the teacher.")
@click.option("--steps", is_flag=True, help="Also how variants were made, and what each step cost.")
@json_option
def command(family: Path, slices: bool, steps: bool, as_json: bool) -> None:
    """Show every variant of a family: accuracy, speed, size, energy and cost. All hashes are checked.

    A wide terminal shows more columns; --json has everything.

    \b
    Example: sluice inspect sluicegate-demo/family
    Example: sluice inspect sluicegate-demo/family --slices --steps
    """
    manifest = read_family(family)
    if as_json:
        print_json(manifest.dump())
        return
    tables: list[Table | None] = [inspect_table(manifest, width=result_console.width)]
    if slices:
        tables.append(slices_table(manifest))
    if steps:
        tables += [making_table(manifest), faithfulness_table(manifest), steps_table(manifest)]
    for table in filter(None, tables):
        result_console.print(to_rich(table))
    for variant in manifest.variants:
        for note in variant.notes:
            result_console.print(f"{variant.name}: {note}", markup=False, highlight=False)
