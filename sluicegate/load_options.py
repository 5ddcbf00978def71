"""The flags that every command with traffic shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from contract.run import Summary
from loadtest.runner import LoadPlan, labelled
from loadtest.traffic import PROCESSES, Traffic
from sluicegate.common import ANY_PATH
from sluicegate.data_options import column_options, tell

F = TypeVar("F", bound=Callable[..., Any])

POSITIVE = click.FloatRange(min=0, min_open=True)


def load_options(function: F) -> F:
    """Add `URL`, `--data` and everything else that says what is asked, but not how fast or how long."""
    for decorate in reversed(
        (
            click.argument("url"),
            click.option(
                "--data", type=ANY_PATH, required=True,
                help="Labelled file or folder: CSV, Parquet, JSON ... (docs/data.md).",
            ),
            column_options,
            click.option("--model", default="cascade", show_default=True, help="A variant, or cascade."),
            click.option(
                "--protocol", type=click.Choice(["v1", "oip"]), default="v1", show_default=True,
                help="POST /v1/classify, or Open Inference Protocol v2.",
            ),
            click.option(
                "--api-key", envvar="SLUICE_API_KEY", show_envvar=True,
                help="Sent as `Authorization: Bearer`.",
            ),
            click.option(
                "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of arrivals and texts."
            ),
            click.option("--split", help="Only rows of this split, where the data have that column."),
            click.option(
                "--arrivals", type=click.Choice(PROCESSES), default="poisson", show_default=True,
                help="How requests are spaced; gamma comes in bursts, see --cv.",
            ),
            click.option(
                "--cv", type=POSITIVE, default=3.0, show_default=True,
                help="Coefficient of variation of the gaps of gamma arrivals; 1 is Poisson.",
            ),
            click.option(
                "--warmup", type=click.FloatRange(min=0), default=1.0, show_default=True,
                help="Seconds before, left out.",
            ),
            click.option(
                "--timeout", type=POSITIVE, default=10.0, show_default=True, help="Seconds."
            ),
        )
    ):  # fmt: skip
        function = decorate(function)
    return function


def plan_of(
    url: str, data: Path, asked: dict[str, Any], *, rate: float, duration: float, out: Path | None
) -> LoadPlan:
    """Return the plan that the shared flags and the command's own describe, its data read."""
    plan = LoadPlan(
        url=url,
        data=data,
        rate_per_s=rate,
        duration_s=duration,
        model=asked["model"],
        protocol=asked["protocol"],
        api_key=asked["api_key"],
        seed=asked["seed"],
        split=asked["split"],
        text=asked["text"] or "text",
        label=asked["label"] or "label",
        slice_column=asked["slice_column"],
        traffic=Traffic(asked["arrivals"], asked["cv"]),
        warmup_s=asked["warmup"],
        timeout_s=asked["timeout"],
        slo_ms=asked["slo_ms"],
        out=out,
    )
    read = labelled(plan)
    tell(read.notes)
    return replace(plan, data=read)


def unknowns(summary: Summary) -> list[str]:
    """Return what is odd about a run's answers and what it could not learn of energy and cost, in lines."""
    said = [*summary.doubts, *([] if summary.unmetered_reason is None else [summary.unmetered_reason])]
    if summary.usd_per_1k is None and summary.machine is None:
        said.append(f"no cost per 1,000: {summary.url} is another machine, whose cores are not known here")
    return said
