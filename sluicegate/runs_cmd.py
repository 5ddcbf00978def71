"""`sluice runs`: the history of load tests in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from contract.errors import RunError
from loadtest.gate import GateResult, compare_runs
from loadtest.history import KeptRun, read_run, remove, runs_in, tag_run, to_prune
from report.format.figures import percent, significant, with_interval
from report.format.tables import Row, Table, to_rich
from report.sections.run_tables import runs_table
from sluicegate.common import FOLDER, json_option, print_json, result_console
from sluicegate.gate_output import gate_table

ROOT = click.argument("root", metavar="[FOLDER]", type=FOLDER, default=Path("runs"))


@click.group("runs")
def command() -> None:
    """List, tag, compare and prune the runs that `sluice loadtest --out` leaves in a folder.

    \b
    Example: sluice runs list runs
    Example: sluice runs compare runs/monday runs/tuesday
    """


@command.command("list")
@ROOT
@click.option("--tag", "tags", multiple=True, help="Only runs with this tag; may be given again.")
@json_option
def list_(root: Path, tags: tuple[str, ...], as_json: bool) -> None:
    """List the runs anywhere below FOLDER, oldest first.

    \b
    Example: sluice runs list runs --tag good
    """
    runs = [run for run in _found(root) if set(tags) <= set(run.tags)]
    if as_json:
        print_json([run.dump() for run in runs])
    else:
        result_console.print(to_rich(_table(root, runs)))


@command.command("tag")
@click.argument("run", type=FOLDER)
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@click.option("--remove", "taken", is_flag=True, help="Take these tags away.")
def tag(run: Path, tags: tuple[str, ...], taken: bool) -> None:
    """Tag a run, which also keeps it from being pruned; `good` is what `sluice gate --last-good` looks for.

    \b
    Example: sluice runs tag runs/release-1.2 good release-1.2
    """
    now = tag_run(run, remove=tags) if taken else tag_run(run, add=tags)
    click.echo(f"{run}: {', '.join(now) or 'no tag'}")


@command.command("compare")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=FOLDER)
@json_option
def compare(runs: tuple[Path, ...], as_json: bool) -> None:
    """Show runs side by side, and how each differs from the first, with intervals.

    Runs that were asked for something else (model, protocol, rate, data) stand in the table alone.

    \b
    Example: sluice runs compare runs/monday runs/tuesday
    """
    if len(runs) < 2:
        raise click.UsageError("two runs or more")
    kept = [read_run(folder) for folder in runs]
    results, unlike = _differences(runs)
    if as_json:
        print_json({"runs": [run.dump() for run in kept], "against_first": [r.dump() for r in results]})
    else:
        result_console.print(to_rich(runs_table([(str(run.folder), run.summary) for run in kept])))
        for result in results:
            result_console.print(to_rich(gate_table(result)))
    for said in unlike:
        click.echo(said, err=True)


@command.command("prune")
@ROOT
@click.option("--keep", type=click.IntRange(0), required=True, help="The newest so many stay in any case.")
@click.option("--older-than", type=click.FloatRange(0), default=0.0, metavar="DAYS", help="Only older runs.")
@click.option("--dry-run", is_flag=True, help="Say what would go.")
@json_option
def prune(root: Path, keep: int, older_than: float, dry_run: bool, as_json: bool) -> None:
    """Delete old runs without a tag. Runs of a sweep, whose `sweep.json` names them, stay.

    \b
    Example: sluice runs prune runs --keep 50 --older-than 30 --dry-run
    """
    going = to_prune(_found(root), keep=keep, older_than_days=older_than)
    for run in () if dry_run else going:
        remove(run)
    if as_json:
        print_json({"dry_run": dry_run, "runs": [str(run.folder) for run in going]})
        return
    for run in going:
        click.echo(f"{'would delete' if dry_run else 'deleted'} {run.folder}")
    click.echo(f"{len(going)} runs {'would go' if dry_run else 'are gone'}")


def _found(root: Path) -> list[KeptRun]:
    runs, broken = runs_in(root)
    for said in broken:
        click.echo(f"left out: {said}", err=True)
    return runs


def _differences(runs: Sequence[Path]) -> tuple[list[GateResult], list[str]]:
    """Return how later runs differ from the first, and of those that cannot be compared why."""
    results, unlike = [], []
    for run in runs[1:]:
        try:
            results.append(compare_runs(runs[0], run))
        except RunError as problem:
            unlike.append(f"no difference: {problem}")
    return results, unlike


def _table(root: Path, runs: Sequence[KeptRun]) -> Table:
    rows = []
    for run in runs:
        s = run.summary
        folder = run.folder.relative_to(root).as_posix()
        cells = (
            folder if folder != "." else str(root),
            f"{datetime.fromtimestamp(run.started_at_s, UTC):%Y-%m-%d %H:%M}",
            s.model,
            significant(s.rate_asked_per_s),
            f"{s.n:,}",
            f"{s.errors:,}",
            with_interval(s.p99_ms, s.p99_interval_ms),
            percent(s.accuracy),
            ", ".join(run.tags),
            "" if s.valid else "void",
        )
        rows.append(Row(cells, "" if s.valid else "muted"))
    columns = ("run", "UTC", "model", "asked/s", "n", "errors", "p99 ms", "accuracy", "tags", "")
    return Table("runs", f"{len(runs)} runs in {root}", columns, tuple(rows))
