"""`sluice serve`: the gateway in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from contract.records import first_problem
from serve.local.launcher import run_until_stopped
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.settings.stages import FakeSettings, StageSettings
from sluicegate.common import ANY_PATH, FILE, FOLDER, progress_console, provider_option, watts_option
from sluicegate.extras import require

PORT = click.IntRange(1, 65535)
POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("serve")
@click.argument("family", type=ANY_PATH, required=False)
@click.option("--policy", type=FILE, help="Default: everything goes to the family's teacher.")
@click.option("--fake", is_flag=True, help="A small fake family, without weights.")
@click.option("--fake-delay-ms", type=click.FloatRange(min=0), default=0.0, help="Of the fake's last stage.")
@click.option("--fake-error-rate", type=click.FloatRange(0, 1), default=0.0, help="Of the fake's last stage.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address or name of this machine to serve on; 0.0.0.0: every IPv4 address, :: all.",
)
@click.option("--port", type=PORT, default=8000, show_default=True, help="Port to serve on.")
@click.option("--admin-port", type=PORT, default=8001, show_default=True, help="Always on 127.0.0.1.")
@click.option("--state", type=FOLDER, help="Keeps the revisions over restarts. Default: none are kept.")
@provider_option
@watts_option
@click.option("--replicas", type=click.IntRange(1), help="Gateway replicas. Default: by the cores.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Per stage.")
@click.option("--max-body-mib", type=POSITIVE, default=1.0, show_default=True, help="Larger bodies get 413.")
@click.option(
    "--max-characters",
    type=click.IntRange(1),
    default=RequestLimits().max_characters,
    show_default=True,
    help="Longer texts get 413. An image is a text: a third longer than its file.",
)
def command(family: Path | None, policy: Path | None, fake: bool, state: Path | None, **asked: Any) -> None:
    """Serve a family under a policy until SIGINT or SIGTERM; then drain and exit 0.

    \b
    Example: sluice serve sluicegate-demo/family --policy sluicegate-demo/policy.json
    Example: sluice serve --fake --fake-delay-ms 20 --host 0.0.0.0
    """
    if (family is None) != fake:
        raise click.UsageError("give either FAMILY or --fake")
    limits = RequestLimits(
        max_body_bytes=int(asked["max_body_mib"] * 2**20), max_characters=asked["max_characters"]
    )
    fakes = FakeSettings(delay_ms=asked["fake_delay_ms"], error_rate=asked["fake_error_rate"])
    try:
        settings = Settings(
            family=_absolute(family),
            policy=_absolute(policy),
            fake=fakes if fake else None,
            host=asked["host"],
            port=asked["port"],
            admin_port=asked["admin_port"],
            state=_absolute(state),
            provider=asked["provider"],
            replicas=asked["replicas"],
            watts_per_core=asked["watts_per_core"],
            limits=limits,
            stage=StageSettings(threads=asked["threads"]),
        )
    except ValidationError as problem:
        raise click.UsageError(first_problem(problem)) from None
    require("sluice serve", "serve")
    run_until_stopped(settings, lambda words: progress_console.print(words, highlight=False, soft_wrap=True))


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
