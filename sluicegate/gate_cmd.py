"""`sluice gate`: tells whether the newer run is worse."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from contract.errors import TargetNotMet
from loadtest.gate import compare_runs
from sluicegate.common import FOLDER, json_option, print_json, result_console


@click.command("gate")
@click.argument("base", type=FOLDER)
@click.argument("head", type=FOLDER)
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
@json_option
def command(
    base: Path,
    head: Path,
    max_p99_increase: float,
    max_accuracy_drop: float,
    max_error_increase: float,
    seed: int,
    as_json: bool,
) -> None:
    """Compare two runs (or two folders of repeats); exit 3 when HEAD is worse beyond limit and noise.

    A figure is worse only when the better end of its interval is beyond the limit.

    \b
    Example: sluice gate runs/base runs/head --max-p99-increase 0.15
    """
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
        shown = Table(title=f"{head} against {base}: {result.verdict}")
        for column in ("figure", "base", "head", "change", "limit", "verdict", "interval by"):
            shown.add_column(column)
        for check in result.checks:
            interval = "" if check.interval is None else " [{:+.3g}, {:+.3g}]".format(*check.interval)
            shown.add_row(
                check.name, _text(check.base), _text(check.head), _text(check.change) + interval,
                f"{check.limit:g}", check.verdict, check.method,
            )  # fmt: skip
        result_console.print(shown)
    if result.verdict == "worse":
        raise TargetNotMet(f"{head} is worse than {base}")


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
