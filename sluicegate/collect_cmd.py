"""`sluice collect`: pass every question on, keep the answers, and say when there is enough to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sluicegate.common import FILE, FOLDER, json_option, print_json, progress_console, result_console
from sluicegate.extras import require
from sluicegate.upstream_options import FRACTION, plan_of, settings_of, upstream_options


@click.group("collect", invoke_without_command=True)
@upstream_options
@click.pass_context
def command(context: click.Context, /, **asked: Any) -> None:
    """Pass every question on to an upstream, and keep questions, answers and probabilities.

    Texts are kept only with --keep-texts, redacted by --redact, and for --retention-days. Its line says when
    there is enough to compress and tune. `sluice proxy` with the same --out goes on from what it has kept.

    \b
    Example: sluice collect --upstream http://127.0.0.1:9000/v1 --usd-per-1k 0.03 --keep-texts
    Example: sluice collect status
    Example: sluice collect export --to rows.parquet
    """
    if context.invoked_subcommand is not None:
        return
    require("sluice collect", "serve")
    from sluicegate.proxy.service import run_proxy
    from sluicegate.proxy_cmd import Teller

    plan = plan_of(asked, trains=False)
    run_proxy(plan, settings_of(plan, asked), _say, Teller())


def _say(words: str) -> None:
    progress_console.print(words, highlight=False, markup=False, soft_wrap=True)


def _result(words: str) -> None:
    result_console.print(words, highlight=False, markup=False, soft_wrap=True)


_OUT = click.option(
    "--out", type=FOLDER, default=Path("sluicegate-proxy"), show_default=True, help="Where it was collected."
)
_QUESTION = click.option(
    "--question", default="", help="Start of the sha256. Default: the one most often asked."
)


@command.command("status")
@_OUT
@_QUESTION
@click.option(
    "--max-disagreement", type=FRACTION, default=0.05, show_default=True, help="Of the family to be made."
)
@click.option("--confidence", type=FRACTION, default=0.9, show_default=True, help="Of its certificate.")
@click.option(
    "--usd-per-1k", type=click.FloatRange(min=0), help="Of the upstream. Default: as it was collected."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the trial.")
@json_option
def status(
    out: Path,
    question: str,
    max_disagreement: float,
    confidence: float,
    usd_per_1k: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Say how much there is, whether it is enough, and how much a family would save.

    A linear model is trained on half of the texts, and certified on a quarter of them: that share would be
    answered here, with Wilson's interval (1927). A day's saving multiplies it by the traffic seen, with
    Garwood's interval (1936); both intervals are at 95%.

    Example: sluice collect status --out sluicegate-proxy --max-disagreement 0.02
    """
    require("sluice collect status", "compress")
    from sluicegate.proxy.prospect import prospect_of, told

    found = prospect_of(
        out / "collected",
        question,
        max_disagreement=max_disagreement,
        confidence=confidence,
        usd_per_1k=usd_per_1k,
        seed=seed,
    )
    if as_json:
        print_json(found.dump())
        return
    for line in told(found):
        _result(line)


@command.command("export")
@_OUT
@_QUESTION
@click.option("--to", type=FILE, required=True, help="Parquet: text, answer, probabilities; one row a text.")
def export(out: Path, question: str, to: Path) -> None:
    """Write the texts of one question with what was answered, for a recipe of your own.

    Example: sluice collect export --to rows.parquet
    """
    from sluicegate.proxy.prospect import chosen
    from tables.collected.store import CollectedStore
    from tables.collected.training import training_rows, write_training

    store = CollectedStore.open(out / "collected")
    rows = training_rows(store, chosen(store, question)[0])
    write_training(to, rows)
    _result(
        f"{len(rows):,} texts with answers to {rows.question.instructions or rows.question.name!r} in {to}"
    )
    _result(f"the order of the probabilities: {', '.join(rows.question.labels)}")


@command.command("tidy")
@_OUT
def tidy(out: Path) -> None:
    """Remove what is too old by the rules, and join small files; running gateways do it every ten minutes.

    Example: sluice collect tidy
    """
    import time

    from tables.collected.store import CollectedStore

    removed = CollectedStore.open(out / "collected").tidy(time.time())
    _result(f"{removed:,} rows were too old")
