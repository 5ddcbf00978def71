"""`sluice inspect`: what a family holds, as tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from contract.errors import FamilyError, TargetNotMet
from contract.family import Family, read_family
from report.format.tables import Table, to_rich
from report.sections.family_parts import faithfulness_table, making_table, slices_table, steps_table
from report.sections.family_tables import inspect_table
from runtime.load import check_family_runs
from runtime.machine import describe_machine
from runtime.stored import Repeated, other_processor, repeat_answers
from sluicegate.common import ANY_PATH, json_option, print_json, result_console


@click.command("inspect")
@click.argument("family", type=ANY_PATH)
@click.option("--slices", is_flag=True, help="Also accuracy per slice, with its delta to the teacher.")
@click.option("--steps", is_flag=True, help="Also how variants were made, and what each step cost.")
@click.option("--here", is_flag=True, help="Also run a few of its rows again on this machine, and compare.")
@json_option
def command(family: Path, slices: bool, steps: bool, here: bool, as_json: bool) -> None:
    """Show every variant of a family: accuracy, speed, size, energy and cost. All hashes are checked.

    With --here, whether every variant gives the answers here that were measured: INT8 on another processor
    may not. Exits 3 where one does not. A wide terminal shows more columns; --json has everything.

    \b
    Example: sluice inspect sluicegate-demo/family
    Example: sluice inspect sluicegate-demo/family --slices --steps
    Example: sluice inspect sluicegate-demo/family --here
    """
    manifest = read_family(family)
    found = _repeated(family, manifest) if here else ()
    if as_json:
        again = {"here": [asdict(one) | {"same": one.same} for one in found]} if here else {}
        print_json(manifest.dump() | again)
        _require_the_same(found)
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
    if here:
        told = other_processor(manifest.machine, describe_machine())
        for line in (*([told] if told else []), *(f"{one.variant}: {one.told}" for one in found)):
            result_console.print(line, markup=False, highlight=False)
    _require_the_same(found)


def _repeated(family: Path, manifest: Family) -> tuple[Repeated, ...]:
    check_family_runs(manifest)
    folder = family if family.is_dir() else family.parent
    found = tuple(repeat_answers(folder, manifest))
    if not found:
        raise FamilyError("it holds no rows that could be run again", where=folder)
    return found


def _require_the_same(found: tuple[Repeated, ...]) -> None:
    other = [one.variant for one in found if not one.same]
    if other:
        raise TargetNotMet(f"other answers on this machine than those measured: {', '.join(other)}")
