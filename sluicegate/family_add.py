"""`sluice family add`: a model behind HTTP becomes a variant of a family, asked, measured and priced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from contract.errors import InputError
from contract.family import Family
from contract.remote import parse_remote
from contract.yamls import read_yaml
from sluicegate.common import FILE, FOLDER, json_option, print_json, progress_console, result_console


@click.command("add")
@click.argument("family", type=FOLDER)
@click.argument("record", type=FILE)
@click.option("--name", required=True, help="Of the variant; a remote one of that name is replaced.")
@click.option(
    "--reference",
    is_flag=True,
    help="It becomes the teacher: what all are compared with, and where requests escalate at last.",
)
@click.option("--out", type=FOLDER, help="Where the family is written. Default: FAMILY itself.")
@click.option("--answers", type=FOLDER, help="Where its answers are kept. Default: `answers` in FAMILY.")
@click.option(
    "--max-usd",
    type=click.FloatRange(min=0),
    metavar="X",
    help="The most that its answers may cost, kept ones included; needed unless it is free.",
)
@click.option(
    "--alone",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="Rows asked one at a time, to time a request alone; 0: none.",
)
@click.option("--dry-run", "dry", is_flag=True, help="Say what it would cost, and ask nothing.")
@json_option
def command(
    family: Path,
    record: Path,
    name: str,
    reference: bool,
    out: Path | None,
    answers: Path | None,
    max_usd: float | None,
    alone: int,
    dry: bool,
    as_json: bool,
) -> None:
    """Add a model behind HTTP to a family: a decision endpoint, a chat model, or an inference server.

    It is asked for the family's held-out rows, within its price, and gets what every variant has: accuracy,
    latency, price and predictions, so that tune, simulate and serve work with it. The answers are kept:
    after a failure or at the price, the same command goes on from there. What it would cost is said first.
    Exits 3 where not every row could be asked.

    A record (docs/remote.md has all keys); its key stays in the environment or a file:

    \b
      form: chat
      url: https://models.example/v1
      model: large-1
      instructions: What is this news story about?
      labels: {sport: games and athletes, tech: computers and the internet}
      credentials: {env: MODELS_KEY}
      usd_per_1k_tokens_in: 0.002
      usd_per_1k_tokens_out: 0.008

    \b
    Example: sluice family add build/family large.yaml --name large --dry-run
    Example: sluice family add build/family large.yaml --name large --reference --max-usd 5
    """
    from compress.add_remote import ANSWERS, RemoteAddition, add_remote, cost_of  # heavy for a light group

    model = parse_remote(read_yaml(record), where=record)
    kept = answers or family / ANSWERS
    wanted = RemoteAddition(name, model, kept, reference, max_usd, alone)
    expected = cost_of(family, wanted)
    total = expected.usd_spent + expected.usd_left
    progress_console.print(expected.told, highlight=False, markup=False, soft_wrap=True)
    if dry:
        if as_json:
            print_json(asdict(expected))
        return
    if max_usd is None and total > 0:
        raise click.UsageError(
            f"it costs about {total:,.4g} USD in all: say what it may, --max-usd {total:.3g}"
        )
    if max_usd is not None and expected.exact and total > max_usd * (1 + 1e-9):
        raise InputError(f"it would cost {total:,.4g} USD, and --max-usd is {max_usd:g}")
    with _progress() as told:
        found = add_remote(family, wanted, out or family, told)
    _show(found, as_json)


def _show(family: Family, as_json: bool) -> None:
    from report.format.tables import to_rich
    from report.sections.family_tables import inspect_table

    if as_json:
        print_json(family.dump())
        return
    result_console.print(to_rich(inspect_table(family, width=result_console.width)))


@contextmanager
def _progress() -> Iterator[Callable[[int, int, float], None]]:
    columns = (
        TextColumn("asking"), BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} rows, {task.fields[usd]:.4g} USD"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=progress_console, transient=True) as shown:
        task = shown.add_task("asking", total=None, usd=0.0)
        yield lambda done, total, usd: shown.update(task, completed=done, total=total, usd=usd)
