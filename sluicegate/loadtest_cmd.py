"""`sluice loadtest`: labelled, open-loop traffic, and the run it leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from loadtest.runner import run_load
from loadtest.traffic import Traffic, read_trace
from report.format.tables import to_rich
from report.sections.run_tables import runs_table
from sluicegate.common import FILE, FOLDER, json_option, print_json, result_console
from sluicegate.load_options import POSITIVE, load_options, plan_of, unknowns
from sluicegate.progress import load_progress


@click.command("loadtest")
@load_options
@click.option("--rate", type=POSITIVE, help="Arrivals a second.")
@click.option("--ramp", metavar="A:B", help="From A arrivals a second to B, evenly, over the duration.")
@click.option(
    "--steps", metavar="A,B,...", help="These rates one after another, each for an equal part of it."
)
@click.option(
    "--trace", type=FILE, help="Arrivals as recorded: Parquet or CSV with times, AIPerf's JSON lines."
)
@click.option(
    "--speed", type=POSITIVE, default=1.0, show_default=True, help="Of the trace: 2 is twice as fast."
)
@click.option("--duration", type=POSITIVE, help="Seconds measured. [default: the whole trace]")
@click.option("--slo-ms", type=POSITIVE, help="The objective for one answer, for goodput.")
@click.option("--out", type=FOLDER, help="Run folder to write.")
@json_option
def command(
    url: str, data: Path, duration: float | None, out: Path | None, as_json: bool, **asked: Any
) -> None:
    """Drive a gateway with traffic of a given shape, whatever it answers, and write one row per request.

    The shape is one of --rate, --ramp, --steps and --trace. Latency runs from the time a request was due,
    so a server that stalls cannot hide it. A run in which the generator was late, or did not reach the
    rate, says so: `valid` is false and `void_reason` why. A run without one answer is void too, and exits 1.

    \b
    Example: sluice loadtest http://127.0.0.1:8000 --data test.csv --rate 50 --duration 30 \\
               --seed 1 --slo-ms 50 --out runs/first
    Example: sluice loadtest http://127.0.0.1:8000 --data test.csv --ramp 10:200 --duration 60 \\
               --arrivals gamma --cv 3 --out runs/morning
    Example: sluice loadtest http://127.0.0.1:8000 --data test.csv --trace runs/first/requests.parquet \\
               --speed 2 --out runs/again
    """
    traffic, rate, duration = _shape(asked, duration)
    plan = plan_of(url, data, asked, rate=rate, duration=duration, out=out)
    plan = replace(plan, traffic=traffic)
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


def _shape(asked: dict[str, Any], duration: float | None) -> tuple[Traffic, float, float]:
    """Return the traffic that was asked for, its mean rate and its length in seconds."""
    given = [name for name in ("rate", "ramp", "steps", "trace") if asked[name] is not None]
    if len(given) != 1:
        raise click.UsageError("one of --rate, --ramp, --steps and --trace")
    if asked["trace"] is not None:
        traffic = read_trace(asked["trace"], speed=asked["speed"], most_s=duration)
        span = duration or traffic.trace[-1] * (1 + 1 / len(traffic.trace)) or 1.0
        return traffic, len(traffic.trace) / span, span
    if duration is None:
        raise click.UsageError("Missing option '--duration'.")
    if asked["rate"] is not None:
        return Traffic(asked["arrivals"], asked["cv"]), asked["rate"], duration
    segments = _ramp(asked["ramp"]) if asked["ramp"] is not None else _steps(asked["steps"])
    traffic = Traffic(asked["arrivals"], asked["cv"], segments)
    return traffic, traffic.mean_rate, duration


def _ramp(given: str) -> tuple[tuple[float, float], ...]:
    begin, _, end = given.partition(":")
    return ((_rate(begin, "--ramp"), _rate(end, "--ramp")),)


def _steps(given: str) -> tuple[tuple[float, float], ...]:
    rates = [_rate(part, "--steps") for part in given.split(",")]
    return tuple((rate, rate) for rate in rates)


def _rate(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a rate per second", param_hint=option) from None
