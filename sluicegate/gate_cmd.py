"""`sluice gate`: tells whether the newer run is worse."""

from __future__ import annotations

from pathlib import Path

import click

from contract.errors import TargetNotMet
from loadtest.gate import compare_runs
from loadtest.history import GOOD, last_good, tag_run
from report.format.tables import to_rich
from sluicegate.common import FILE, FOLDER, json_option, print_json, result_console
from sluicegate.gate_output import append_summary, gate_table, write_junit


@click.command("gate")
@click.argument("runs", metavar="[BASE] HEAD", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--last-good",
    "last_good_of",
    type=FOLDER,
    metavar="RUNS",
    help="In place of BASE: the newest run below this folder that is tagged good and was asked for the same. "
    "HEAD is tagged good when it passes, or when there is none yet.",
)
@click.option(
    "--max-p99-increase",
    type=click.FloatRange(min=0),
    default=0.1,
    show_default=True,
    help="0.1 is 10% slower.",
)
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="0.01 is one point.",
)
@click.option(
    "--max-error-increase",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="Of the error rate.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--junit", type=FILE, help="Write the checks as JUnit XML.")
@click.option(
    "--github-summary",
    type=FILE,
    envvar="GITHUB_STEP_SUMMARY",
    show_envvar=True,
    help="Append the table to this Markdown file.",
)
@json_option
def command(
    runs: tuple[Path, ...],
    last_good_of: Path | None,
    max_p99_increase: float,
    max_accuracy_drop: float,
    max_error_increase: float,
    seed: int,
    junit: Path | None,
    github_summary: Path | None,
    as_json: bool,
) -> None:
    """Compare two runs (or two folders of repeats); exit 3 when HEAD is worse beyond limit and noise.

    A figure is worse only when the better end of its interval is beyond the limit.

    \b
    Example: sluice gate runs/base runs/head --max-p99-increase 0.15
    Example: sluice gate runs/today --last-good runs --junit gate.xml
    """
    *before, head = runs
    if len(before) != (last_good_of is None):
        raise click.UsageError("either BASE and HEAD, or HEAD and --last-good RUNS")
    base = before[0] if last_good_of is None else last_good(last_good_of, head)
    if base is None:
        tag_run(head, add=(GOOD,))
        click.echo(
            f"no good run in {last_good_of} was asked for the same as {head}: it is the first", err=True
        )
        return
    result = compare_runs(
        base,
        head,
        max_p99_increase=max_p99_increase,
        max_accuracy_drop=max_accuracy_drop,
        max_error_increase=max_error_increase,
        seed=seed,
    )
    if as_json:
        print_json(result.dump())
    else:
        result_console.print(to_rich(gate_table(result)))
    if junit is not None:
        write_junit(junit, result)
    if github_summary is not None:
        append_summary(github_summary, result)
    if result.verdict == "worse":
        raise TargetNotMet(f"{head} is worse than {base}")
    if last_good_of is not None and result.verdict == "passed":
        tag_run(head, add=(GOOD,))
