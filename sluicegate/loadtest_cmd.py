"""`sluice loadtest`: labelled, open-loop traffic, and the run it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loadtest.runner import run_load
from report.format.tables import to_rich
from report.sections.run_tables import runs_table
from sluicegate.common import FOLDER, json_option, print_json, result_console
from sluicegate.load_options import POSITIVE, load_options, plan_of, unknowns
from sluicegate.progress import load_progress


@click.command("loadtest")
@load_options
@click.option("--rate", type=POSITIVE, required=True, help="Arrivals a second.")
@click.option("--duration", type=POSITIVE, required=True, help="Seconds measured.")
@click.option("--slo-ms", type=POSITIVE, help="The objective for one answer, for goodput.")
@click.option("--out", type=FOLDER, help="Run folder to write.")
@json_option
def command(
    url: str, data: Path, rate: float, duration: float, out: Path | None, as_json: bool, **asked: Any
) -> None:
    """Drive a gateway at a fixed rate, whatever it answers, and write one row per request.

    Latency runs from the time a request was due, so a server that stalls cannot hide it. A run in which
    the generator was late, or did not reach the rate, says so: `valid` is false and `void_reason` why. A
    run without one answer is void too, and exits 1.

    \b
    Example: sluice loadtest http://127.0.0.1:8000 --data test.csv --rate 50 --duration 30 \\
               --seed 1 --slo-ms 50 --out runs/first
    """
    plan = plan_of(url, data, asked, rate=rate, duration=duration, out=out)
    with load_progress() as progress:
        summary = run_load(plan, progress=progress)
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        result_console.print(to_rich(runs_table([(summary.model if out is None else out.name, summary)])))
    if not summary.valid:
        click.echo(f"void: {summary.void_reason}", err=True)
    for said in unknowns(summary):
        click.echo(said, err=True)
    if summary.n and summary.errors == summary.n:
        raise click.exceptions.Exit(1)
