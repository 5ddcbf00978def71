"""`sluice sweep`: what rate a gateway holds within an objective, and what each threshold costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from contract.errors import TargetNotMet
from loadtest.sweep import Sweep, run_sweep
from sluicegate import sweep_thresholds
from sluicegate.admin_options import admin_url_option, family_option
from sluicegate.common import FOLDER, json_option, print_json, result_console
from sluicegate.load_options import POSITIVE, load_options, plan_of, unknowns
from sluicegate.progress import series_progress


@click.command("sweep")
@load_options
@click.option("--slo-ms", type=POSITIVE, required=True, help="p99 within this, errors under 0.1%.")
@click.option("--rates", help="A curve over these rates, comma-separated, in place of a search.")
@click.option("--duration", type=POSITIVE, default=5.0, show_default=True, help="Seconds per rate.")
@click.option(
    "--thresholds",
    metavar="A,B,...|FROM:TO:N",
    help="In place of rates: turn the first stage's threshold through the admin interface, at one --rate.",
)
@click.option("--rate", type=POSITIVE, help="With --thresholds: arrivals a second, the same for all.")
@click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Runs of each threshold."
)
@click.option("--stage", metavar="VARIANT", help="The stage to turn. [default: the first]")
@click.option(
    "--max-accuracy-drop", type=click.FloatRange(0, 1), help="Limit of the advice; 0.01 is one point."
)
@click.option("--max-usd-per-1k", type=POSITIVE, help="Limit of the advice, by CPU time and charges.")
@family_option
@admin_url_option
@click.option("--out", type=FOLDER, help="Keep the runs and sweep.json (thresholds.json) here.")
@json_option
def command(
    url: str, data: Path, rates: str | None, duration: float, out: Path | None, as_json: bool, **asked: Any
) -> None:
    """Search the highest rate that is held within the objective, or draw a curve over rates or thresholds.

    The JSON has `capacity` (rate_per_s, goodput_per_s, interval_per_s, usd_per_1k, limited_by) and
    `steps`, one per rate tried. Exit code 3 when no rate is held.

    With --thresholds the gateway answers by other thresholds while it lasts, uncertified, each a revision of
    its own, and by the policy that was in force when it ends. Every threshold, and each variant alone, is
    driven at the same rate, in changing order; it tells accuracy, p99, money and energy against the
    escalation rate, the knee, and the cheapest point within the limits, or "do not route". Exit code 3 when
    there is none.

    \b
    Example: sluice sweep http://127.0.0.1:8000 --data test.csv --slo-ms 50 --out sweeps/cascade
    Example: sluice sweep http://127.0.0.1:8000 --data test.csv --slo-ms 50 --rates 20,40,80 --json
    Example: sluice sweep http://127.0.0.1:8000 --data test.csv --slo-ms 50 --thresholds 0.5:0.95:6 \\
               --rate 30 --duration 20 --max-accuracy-drop 0.01 --out sweeps/thresholds
    """
    if asked["thresholds"] is not None:
        if rates is not None or asked["rate"] is None:
            raise click.UsageError("--thresholds goes with --rate, not with --rates")
        options = _threshold_options(asked)
        plan = plan_of(url, data, asked, rate=asked["rate"], duration=duration, out=None)
        sweep_thresholds.run(plan, options, out, as_json=as_json)
        return
    plan = plan_of(url, data, asked, rate=1.0, duration=duration, out=None)
    with series_progress() as progress:
        sweep = run_sweep(plan, rates=_rates(rates), out=out, progress=progress)
    if as_json:
        print_json(sweep.dump(out))
    else:
        _show(sweep)
    for said in dict.fromkeys(line for step in sweep.steps for line in unknowns(step.summary)):
        click.echo(said, err=True)
    if sweep.capacity is not None and sweep.capacity.rate_per_s is None:
        raise TargetNotMet(f"no rate is held within {sweep.slo_ms:g} ms")


def _threshold_options(asked: dict[str, Any]) -> sweep_thresholds.ThresholdOptions:
    names = ("repeats", "stage", "family", "admin_url", "max_accuracy_drop", "max_usd_per_1k")
    return sweep_thresholds.ThresholdOptions(
        thresholds=sweep_thresholds.parsed(asked["thresholds"]), **{name: asked[name] for name in names}
    )


def _rates(given: str | None) -> list[float] | None:
    if given is None:
        return None
    try:
        return [float(part) for part in given.split(",")]
    except ValueError:
        raise click.BadParameter(f"{given!r} is not a list of numbers", param_hint="--rates") from None


def _show(sweep: Sweep) -> None:
    shown = Table(title=f"{sweep.model} at {sweep.url}, p99 within {sweep.slo_ms:g} ms")
    for column in ("asked per s", "outcome", "p99 ms", "goodput per s", "reason"):
        shown.add_column(column)
    for step in sweep.steps:
        figures = (step.summary.p99_ms, step.summary.goodput_per_s)
        cells = ("-" if value is None else f"{value:.4g}" for value in figures)
        shown.add_row(f"{step.rate_per_s:.4g}", step.outcome, *cells, step.reason)
    result_console.print(shown)
    found = sweep.capacity
    if found is not None and found.rate_per_s is not None:
        interval = "" if found.interval_per_s is None else " [{:.4g}, {:.4g}]".format(*found.interval_per_s)
        words = f"held: {found.rate_per_s:.4g} per second{interval}, limited by the {found.limited_by}"
        result_console.print(words, highlight=False)
