"""`sluice simulate`: replay a policy on predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table as RichTable

from contract.policy import ABSTAIN, read_policy
from router.decide.latency import predicted_latency
from router.decide.simulate import simulate
from sluicegate.common import FILE, json_option, print_json, result_console
from sluicegate.inputs import read_table, table_options


@click.command("simulate")
@table_options
@click.option("--policy", "policy_path", type=FILE, required=True, help="The policy to replay.")
@click.option(
    "--split",
    type=click.Choice(["tune", "certify", "test", "all"]),
    help="Rows to replay on. Default: test for a family, all rows of a table.",
)
@click.option("--gear", help="One gear of a policy that has some. Default: the policy's own stages.")
@click.option(
    "--mix",
    "mix_path",
    type=FILE,
    help="Decisions, predictions or texts of today, without labels: what a policy with cells loses on them.",
)
@json_option
def command(
    family: Path | None,
    predictions: Path | None,
    labels: str | None,
    costs: Path | None,
    policy_path: Path,
    split: str | None,
    gear: str | None,
    mix_path: Path | None,
    as_json: bool,
) -> None:
    """Replay a policy on predictions: accuracy, escalation, cost, per slice and per class.

    Of a family also p50 and p99 of a request alone, without queues, from the times of its variants.

    \b
    Example: sluice simulate sluicegate-demo/family --policy sluicegate-demo/policy.json
    Example: sluice simulate sluicegate-demo/family --policy policy.json --gear overload-1
    Example: sluice simulate family --policy policy.json --mix today.parquet
    """
    table = read_table(family, predictions, costs, labels)
    chosen = split or ("test" if table.family is not None else "all")
    rows = table.predictions if chosen == "all" else table.predictions.rows_of(chosen)
    policy = read_policy(policy_path)
    replayed = simulate(rows, table.costs, policy if gear is None else policy.in_gear(gear))
    figures = replayed.figures
    if table.family is not None:
        ran = [name for name in replayed.variants if name != ABSTAIN]
        stages = [table.family.variant(name).time_quantiles for name in ran]
        figures |= predicted_latency(replayed.rows.ran, stages)
    if mix_path is not None:
        from sluicegate.mix_today import mix_today

        figures["mix"] = mix_today(mix_path, policy, table)
    if as_json:
        print_json(figures)
        return
    shown = RichTable(title=f"{policy_path} on {table.where} ({chosen})", show_header=False)
    for key, value in figures.items():
        if key not in {"per_slice", "per_class", "mix"}:
            shown.add_row(key, _text(value))
    for key, value in figures.get("mix", {}).items():
        if key != "cells":
            shown.add_row(f"mix: {key}", _text(value))
    result_console.print(shown)
    for name in ("per_slice", "per_class"):
        if figures[name]:
            result_console.print(_parts(name.replace("_", " "), figures[name]))


def _parts(title: str, parts: dict[str, dict[str, Any]]) -> RichTable:
    columns = [key for key in next(iter(parts.values())) if key not in {"reference", "accuracy_interval"}]
    shown = RichTable(title=title)
    for column in (title.removeprefix("per "), *columns):
        shown.add_column(column)
    for name, part in parts.items():
        shown.add_row(name, *(_text(part[column]) for column in columns))
    return shown


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " to ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return str(value)
