"""`sluice label`: which rows to label, and what their labels prove."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from contract.errors import InputError, TargetNotMet
from contract.labels import write_rows_to_label
from contract.policy import write_policy
from router.labels.certify import UNKNOWN, certify
from router.labels.result import LabelResult, result_of, savings_of
from router.labels.worth import Worth, worth_of
from router.tune.settings import TuneSettings
from sluicegate.common import FILE, json_option, print_json, result_console
from sluicegate.inputs import Table, read_table, table_options, tune_settings
from sluicegate.label_rows import Drawn, drawn_rows, file_of, redrawn
from tables.rows_to_label import read_rows_to_label


@click.command("label")
@table_options
@click.option(
    "--budget", type=click.IntRange(1), default=300, show_default=True, help="Rows to label at most."
)
@click.option("--out", type=FILE, help="Write the rows to label to this CSV.")
@click.option("--in", "given", type=FILE, help="Read labels from this CSV, and certify with them.")
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Against the reference; 0.01 is one point. Default: 0.01; with --in what the rows were drawn for.",
)
@click.option("--confidence", type=click.FloatRange(0, 1), default=0.9, show_default=True, help="1 - delta.")
@click.option(
    "--policy",
    type=FILE,
    default=Path("policy.json"),
    show_default=True,
    help="The policy that the labels certify; always written once there are labels.",
)
@click.option(
    "--reference",
    help="Variant that drops count against. Default: the family's teacher; without a family the dearest.",
)
@click.option("--variants", help="Only these, comma-separated; default: what promises the greatest saving.")
@click.option(
    "--score",
    type=click.Choice(["max_probability", "margin", "entropy"]),
    default="max_probability",
    show_default=True,
    help="How sure a stage is; some need logits.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw.")
@json_option
def command(
    family: Path | None,
    predictions: Path | None,
    labels: str | None,
    costs: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Label only what can matter, and certify with it.

    Where an accepted answer is the reference's too, accepting it costs nothing, whatever the label. So rows
    are asked for on which the two differ, those of the surest scores first: with --out they go into a CSV
    whose column `label` is yours to fill, from the top as far as you like; --in reads it back and writes a
    certified policy. On a terminal, without either, they are asked one by one: keys for the likely labels, a
    typed label, u to undo, q to stop; what was answered is kept in labels.csv beside the predictions, and
    the same command goes on from there.

    Rows need predictions of every variant and no label; a label that is no more than the teacher's answer
    counts as none. Exits 3 where the labels certify no threshold.

    \b
    Example: sluice label family --budget 300 --out labels.csv
    Example: sluice label family --in labels.csv --max-accuracy-drop 0.01 --policy policy.json
    Example: sluice label --predictions p.parquet --costs c.json --budget 100
    """
    if asked["out"] is not None and asked["given"] is not None:
        raise click.UsageError("give --out to write rows to label, or --in to read them back, not both")
    table = read_table(family, predictions, costs, labels)
    settings = tune_settings(table, asked)
    if asked["given"] is not None:
        _certify(table, settings, asked, as_json=as_json)
        return
    drawn = drawn_rows(table, settings, asked["budget"], asked["max_accuracy_drop"] or 0.01)
    if asked["out"] is not None:
        write_rows_to_label(asked["out"], drawn.rows(), drawn.sampling)
        _show_draw(drawn, table, settings, asked["out"], as_json=as_json)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("there is no terminal to ask on: give --out FILE, and later --in FILE")
    _ask(drawn, table, settings, asked, as_json=as_json)


def _show_draw(drawn: Drawn, table: Table, settings: TuneSettings, out: Path, *, as_json: bool) -> None:
    pair, draw = drawn.pair, drawn.draw
    worth = _worth_of_all(drawn, table, settings)
    if as_json:
        print_json(
            {
                "cheap": pair.cheap,
                "reference": pair.reference,
                "rows": len(pair),
                "rows_drawn": draw.n,
                "to_label": len(draw),
                "inclusion_probability": draw.probability,
                "lowest_threshold": float(pair.path[max(0, draw.level)]),
                "expected_saving": worth.expected,
                "expected_saving_interval": [worth.low, worth.high],
                "out": str(out),
            }
        )
        return
    for line in (
        f"{pair.cheap!r} goes before the reference {pair.reference!r}, on {len(pair)} rows without a label.",
        f"Of {draw.n} of these, drawn at random, {len(draw)} have a {pair.model.name} of "
        f"{pair.path[max(0, draw.level)]:.4g} or more and another answer than the reference: these are to be "
        "labelled. Where the two agree no label is needed.",
        f"By what is usual they would certify a saving of {worth.expected:.0%} (80% of simulated outcomes: "
        f"{worth.low:.0%} to {worth.high:.0%}).",
        f"written to {out}: fill the column `label` from the top, as far as you like, then",
        f"  sluice label {_again(table)} --in {out} --policy policy.json",
    ):
        result_console.print(line, highlight=False, markup=False, soft_wrap=True)


def _worth_of_all(drawn: Drawn, table: Table, settings: TuneSettings) -> Worth:
    none = np.full(len(drawn.draw), UNKNOWN, dtype=np.int64)
    epsilon, delta = drawn.sampling.epsilon, 1.0 - settings.confidence
    return worth_of(
        drawn.pair,
        drawn.draw,
        none,
        certify(drawn.pair, drawn.draw, none, epsilon, delta),
        savings_of(drawn.pair, table.costs),
        labels=max(1, len(drawn.draw)),
        epsilon=epsilon,
        delta=delta,
    )


def _again(table: Table) -> str:
    return str(table.where) if table.family is not None else f"--predictions {table.where} --costs COSTS"


def _certify(table: Table, settings: TuneSettings, asked: dict[str, Any], *, as_json: bool) -> None:
    label_set = [str(label) for label in table.predictions.labels]
    read = read_rows_to_label(asked["given"], label_set)
    drawn = redrawn(table, settings, read)
    labels = {row.row: row.label for row in read.rows if row.label is not None}
    if not labels:
        raise InputError(
            "no row has a label yet", where=asked["given"], hint="fill its column `label`, from the top"
        )
    epsilon = asked["max_accuracy_drop"] or drawn.sampling.epsilon
    result = _result(drawn, labels, table, settings, epsilon)
    _show_result(result, asked["policy"], as_json=as_json)


def _result(
    drawn: Drawn, labels: Mapping[int, str], table: Table, settings: TuneSettings, epsilon: float
) -> LabelResult:
    """Return what the labels, by row of the table, prove."""
    return result_of(
        drawn.pair,
        drawn.draw,
        drawn.losses(labels),
        drawn.predictions,
        table.costs,
        replace(settings, seed=drawn.sampling.seed),
        epsilon,
    )


def _show_result(result: LabelResult, policy: Path, *, as_json: bool) -> None:
    write_policy(policy, result.policy)
    if as_json:
        worth = result.worth
        told = {
            "labels": worth.labels,
            "rows": worth.rows,
            "saving_now": worth.now,
            "expected_saving": worth.expected,
            "expected_saving_interval": [worth.low, worth.high],
        }
        print_json({"policy": result.policy.dump(), "next": told})
    else:
        for line in result.explanation:
            result_console.print(line, highlight=False, markup=False, soft_wrap=True)
        result_console.print(f"\nwritten to {policy}", highlight=False, soft_wrap=True)
    if not result.met:
        raise TargetNotMet("these labels certify no threshold; everything goes to the reference")


def _ask(drawn: Drawn, table: Table, settings: TuneSettings, asked: dict[str, Any], *, as_json: bool) -> None:
    from sluicegate.label_asking import ask

    labels = ask(drawn, file_of(table), settings.confidence)
    if not labels:
        return
    result = _result(drawn, labels, table, settings, drawn.sampling.epsilon)
    _show_result(result, asked["policy"], as_json=as_json)
