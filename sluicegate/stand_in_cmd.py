"""`sluice stand-in`: a family of ours in the place of somebody's large model, to try things on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from sluicegate.common import FOLDER, progress_console
from sluicegate.extras import require

POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("stand-in")
@click.argument("family", type=FOLDER, required=False)
@click.option("--fake", is_flag=True, help="The small fake family of `serve --fake`, without weights.")
@click.option("--variant", help="That answers. Default: the family's teacher.")
@click.option(
    "--delay-ms",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Every answer comes so long after its request.",
)
@click.option(
    "--usd-per-1k",
    type=click.FloatRange(min=0),
    default=0.03,
    show_default=True,
    help="Price of 1,000 questions; GET /spending has the sum.",
)
@click.option("--requests-per-s", type=POSITIVE, help="Beyond: 429 with Retry-After. Default: no limit.")
@click.option(
    "--failing-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Of requests, answered with 500.",
)
@click.option("--api-key-env", metavar="NAME", help="Environment variable with the key that must be shown.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of one call.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of failures and draws.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", type=click.IntRange(0, 65535), default=9000, show_default=True, help="0: a free one.")
def command(
    family: Path | None,
    fake: bool,
    variant: str | None,
    delay_ms: float,
    usd_per_1k: float,
    requests_per_s: float | None,
    failing_share: float,
    api_key_env: str | None,
    threads: int,
    seed: int,
    host: str,
    port: int,
) -> None:
    """Answer closed questions as a large model's server does, from a family, until SIGINT or SIGTERM.

    It takes POST /v1/decisions, and POST /v1/chat/completions with a JSON schema or a tool that must be
    called, tells log-probabilities where they are asked for, takes as long and costs as much as is said here,
    and needs no account.

    \b
    Example: sluice stand-in sluicegate-demo/family --delay-ms 300 --usd-per-1k 0.03 --port 9000
    Example: sluice stand-in --fake --port 9000
    Example: sluice stand-in family --variant teacher-int8 --requests-per-s 20 --failing-share 0.01
    """
    if (family is None) != fake:
        raise click.UsageError("give either FAMILY or --fake")
    require("sluice stand-in", "serve")
    from runtime.fake_family import write_fake_family
    from serve.standin.server import run
    from serve.standin.settings import StandInSettings

    settings = StandInSettings(
        variant=variant,
        delay_ms=delay_ms,
        usd_per_1k=usd_per_1k,
        requests_per_s=requests_per_s,
        failing_share=failing_share,
        api_key_env=api_key_env,
        threads=threads,
        seed=seed,
        host=host,
        port=port,
    )
    with tempfile.TemporaryDirectory() as folder:
        if family is None:
            family = Path(folder)
            write_fake_family(family, delay_ms=0.0, rows=60)
        run(family, settings, _say)


def _say(words: str) -> None:
    progress_console.print(words, highlight=False, soft_wrap=True)
