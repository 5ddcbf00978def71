"""The part of `sluice sweep` that turns thresholds on a running gateway and shows what each one costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from contract.errors import TargetNotMet
from contract.policy import ABSTAIN, Policy
from loadtest.operating_point import Point, Wanted
from loadtest.runner import LoadPlan
from loadtest.thresholds import Arm, ThresholdSweep, sweep_thresholds
from report.format.figures import (
    UNKNOWN,
    percent,
    percent_interval,
    points_interval,
    significant,
    with_interval,
)
from report.format.tables import Row, Table, to_rich
from serve.types.messages import CASCADE
from sluicegate.common import print_json, result_console
from sluicegate.load_options import unknowns
from sluicegate.progress import series_progress
from sluicegate.threshold_dial import ThresholdDial


@dataclass(frozen=True)
class ThresholdOptions:
    """What the command line says of a sweep over thresholds."""

    thresholds: tuple[float, ...]
    repeats: int
    stage: str | None
    family: str | None
    admin_url: str
    max_accuracy_drop: float | None
    max_usd_per_1k: float | None


def run(plan: LoadPlan, options: ThresholdOptions, out: Path | None, *, as_json: bool) -> None:
    """Sweep, show, and raise TargetNotMet where no point keeps the limits."""
    wanted = Wanted(plan.slo_ms or 0.0, options.max_accuracy_drop, options.max_usd_per_1k)
    with ThresholdDial(options.admin_url, options.family, options.stage) as dial, series_progress() as watch:
        arms = arms_of(dial.policy, options.thresholds, options.family)
        sweep = sweep_thresholds(
            plan, arms, dial.policy.reference, dial.turn,
            repeats=options.repeats, wanted=wanted, out=out, progress=watch,
        )  # fmt: skip
    if as_json:
        print_json(sweep.dump())
    else:
        result_console.print(to_rich(sweep_table(sweep)))
        result_console.print(sweep.advice.words, highlight=False)
    for said in dict.fromkeys(line for point in sweep.points for line in unknowns(point.summary)):
        click.echo(said, err=True)
    if sweep.advice.point is None:
        raise TargetNotMet(sweep.advice.words)


def arms_of(policy: Policy, thresholds: Sequence[float], family: str | None) -> list[Arm]:
    """Return the cascade at each threshold, and each variant of its stages and the reference alone.

    Args:
        policy: in force.
        thresholds: of the stage that is turned.
        family: the name it is served under; None: the only one.
    """
    prefix = f"{family}/" if family else ""
    variants = [stage.variant for stage in policy.stages if stage.variant != ABSTAIN]
    alone = dict.fromkeys([*variants, policy.reference])
    return [
        *(Arm(f"{t:g}", family or CASCADE, t) for t in sorted(set(thresholds))),
        *(Arm(name, prefix + name, None) for name in alone),
    ]


def sweep_table(sweep: ThresholdSweep) -> Table:
    """Return one row per point; the recommended one stands out, those that miss a limit are muted."""
    best = sweep.advice.point
    rows = tuple(
        Row(
            _cells(point, sweep),
            "strong" if best is not None and point.name == best.name
            else "muted" if point.name in sweep.advice.misses else "",
        )
        for point in sweep.points
    )  # fmt: skip
    columns = (
        "threshold", "escalated", "accuracy", f"points to {sweep.reference}", "p99 ms", "goodput/s",
        "USD/1k by CPU", "Wh/1k", "gCO2e/1k", "",
    )  # fmt: skip
    notes = [
        f"At {sweep.rate_per_s:g} per second, {sweep.repeats} runs of each in changing order; 95% intervals; "
        f"goodput within {sweep.slo_ms:g} ms."
    ]
    notes += [f"{name}: {missed}." for name, missed in sweep.advice.misses.items()]
    table = Table("thresholds", f"Thresholds at {sweep.url}", columns, rows, tuple(notes), frozenset({""}))
    return table.without_empty_columns()


def _cells(point: Point, sweep: ThresholdSweep) -> tuple[str, ...]:
    s, gap = point.summary, point.gap
    names = [
        word
        for word, marked in (("knee", sweep.knee), ("recommended", sweep.advice.point))
        if marked is not None and marked.name == point.name
    ]
    return (
        point.name,
        percent(s.escalation_rate) if not point.alone else UNKNOWN,
        percent_interval(s.accuracy, s.accuracy_interval),
        UNKNOWN if gap is None else points_interval(gap.value, gap.interval),
        with_interval(s.p99_ms, s.p99_interval_ms),
        with_interval(s.goodput_per_s, s.goodput_interval_per_s),
        significant(point.usd_per_1k),
        significant(s.energy_wh_per_1k),
        significant(s.gco2e_per_1k),
        ", ".join(names),
    )


def parsed(given: str) -> tuple[float, ...]:
    """Return the thresholds of `0.5,0.7` or `0.5:0.9:5` (from, to, how many). Raises BadParameter."""
    try:
        if ":" in given:
            low, high, count = given.split(":")
            n = int(count)
            if n < 2:
                raise ValueError
            step = (float(high) - float(low)) / (n - 1)
            found: Sequence[float] = [round(float(low) + i * step, 9) for i in range(n)]
        else:
            found = [float(part) for part in given.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{given!r} is neither 0.5,0.7,0.9 nor FROM:TO:HOW_MANY", param_hint="--thresholds"
        ) from None
    if not all(0 <= t <= 1 for t in found):
        raise click.BadParameter("thresholds lie in [0, 1], as scores do", param_hint="--thresholds")
    return tuple(found)
