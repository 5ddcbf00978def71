"""`sluice inspect`: what a family holds, as a table."""

from __future__ import annotations

from pathlib import Path

import click

from contract.family import read_family
from report.family_tables import inspect_table
from report.tables import to_rich
from sluicegate.common import ANY_PATH, json_option, print_json, result_console


@click.command("inspect")
@click.argument("family", type=ANY_PATH)
@json_option
def command(family: Path, as_json: bool) -> None:
    """Show every variant of a family: accuracy, speed, size, energy and cost. All hashes are checked.

    Example: sluice inspect sluicegate-demo/family
    """
    manifest = read_family(family)
    if as_json:
        print_json(manifest.dump())
        return
    result_console.print(to_rich(inspect_table(manifest)))
