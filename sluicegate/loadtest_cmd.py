"""`sluice loadtest`: labelled, open-loop traffic, and the run it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from contract.errors import TargetNotMet
from contract.run import Summary
from loadtest.runner import LoadPlan, run_load
from report.run_tables import runs_table
from report.tables import to_rich
from sluicegate.common import FILE, FOLDER, json_option, print_json, result_console
from sluicegate.progress import load_progress


@click.command("loadtest")
@click.argument("url")
@click.option("--data", type=FILE, required=True, help="CSV, Parquet or JSONL with text and label.")
@click.option("--model", default="cascade", show_default=True, help="A variant, or cascade.")
@click.option("--protocol", type=click.Choice(["v1", "oip"]), default="v1", show_default=True)
@click.option("--api-key", help="Sent as `Authorization: Bearer`.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), required=True, help="Arrivals a second.")
@click.option(
    "--duration", type=click.FloatRange(min=0, min_open=True), required=True, help="Seconds measured."
)
@click.option(
    "--warmup", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Seconds before."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--slo-ms", type=click.FloatRange(min=0, min_open=True), help="The objective, for goodput.")
@click.option("--split", help="Only rows of this split, where the data have that column.")
@click.option("--arrivals", type=click.Choice(["poisson", "uniform"]), default="poisson", show_default=True)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True)
@click.option("--out", type=FOLDER, help="Run folder to write.")
@json_option
def command(url: str, data: Path, as_json: bool, **asked: Any) -> None:
    """Drive a gateway at a fixed rate, whatever it answers, and write one row per request.

    Latency runs from the time a request was due, so a server that stalls cannot hide it. Exit code 3
    when the run is void (the generator was late, or did not reach the rate); the reason is in the summary.

    \b
    Example: sluice loadtest http://127.0.0.1:8000 --data test.csv --rate 50 --duration 30 \\
               --seed 1 --slo-ms 50 --out runs/first
    """
    plan = LoadPlan(
        url=url,
        data=data,
        rate_per_s=asked["rate"],
        duration_s=asked["duration"],
        model=asked["model"],
        protocol=asked["protocol"],
        seed=asked["seed"],
        warmup_s=asked["warmup"],
        slo_ms=asked["slo_ms"],
        api_key=asked["api_key"],
        process=asked["arrivals"],
        split=asked["split"],
        timeout_s=asked["timeout"],
        out=asked["out"],
    )
    with load_progress() as progress:
        summary = run_load(plan, progress=progress)
    _show(summary, asked["out"], as_json)
    if not summary.valid:
        raise TargetNotMet(f"the run is void: {summary.void_reason}")


def _show(summary: Summary, out: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(summary.model_dump(mode="json"))
        return
    result_console.print(to_rich(runs_table([(summary.model if out is None else out.name, summary)])))
