"""The options of the commands that stand in front of an upstream, and the settings that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from contract.collected import Redaction
from contract.records import first_problem
from serve.settings.collect import CollectSettings
from serve.settings.gateway import Settings
from serve.settings.scaling import most
from serve.settings.traffic import TrafficSettings
from serve.settings.upstream import UpstreamSettings
from sluicegate.common import FOLDER
from sluicegate.proxy.plan import Plan, Upstream

F = TypeVar("F", bound=Callable[..., Any])
PORT = click.IntRange(1, 65535)
POSITIVE = click.FloatRange(min=0, min_open=True)
FRACTION = click.FloatRange(0, 1, min_open=True, max_open=True)

MOST_PLACES = 1024
"""Requests that a remote stage may have out at a time; see contract.remote."""
TRAFFIC = TrafficSettings(beside_texts=256, busy_cpu_share=None, canary_texts_per_s=10.0)
"""Texts inside mostly wait for the upstream: comparisons, one at a time, need not wait for them to leave."""


def upstream_options(function: F) -> F:
    """Add what every gateway in front of an upstream is told."""
    for decorate in reversed(
        (
            click.option(
                "--upstream",
                metavar="URL",
                help="Where applications ask today: the base URL of their client, such as "
                "https://models.example/v1.",
            ),
            click.option(
                "--out",
                type=FOLDER,
                default=Path("sluicegate-proxy"),
                show_default=True,
                help="Keeps all that is collected and made; the same command goes on from there.",
            ),
            click.option(
                "--api-key-env",
                metavar="NAME",
                help="Environment variable with the upstream's key. Default: clients bring theirs; an "
                "upstream that wants a key is then passed on to, and nothing is trained.",
            ),
            click.option(
                "--usd-per-1k",
                type=click.FloatRange(min=0),
                help="What the upstream takes for 1,000 questions.",
            ),
            click.option("--keep-texts", is_flag=True, help="Keep texts of requests; needed to train."),
            click.option(
                "--retention-days",
                type=POSITIVE,
                default=30.0,
                show_default=True,
                help="Older rows are removed.",
            ),
            click.option(
                "--redact",
                multiple=True,
                metavar="PATTERN",
                help="Regular expression, replaced by <redacted> before anything is kept; may be repeated.",
            ),
            click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on."),
            click.option("--port", type=PORT, default=8000, show_default=True, help="Port to serve on."),
            click.option("--admin-port", type=PORT, default=8001, show_default=True, help="On 127.0.0.1."),
            click.option(
                "--replicas", type=click.IntRange(1), help="Gateway replicas. Default: by the cores."
            ),
        )
    ):
        function = decorate(function)
    return function


def plan_of(asked: dict[str, Any], **more: Any) -> Plan:
    """Return the plan of what was asked. Raises UsageError where the upstream or its price is missing."""
    if not asked["upstream"]:
        raise click.UsageError("--upstream URL says where applications ask today")
    if asked["usd_per_1k"] is None:
        raise click.UsageError(
            "--usd-per-1k says what the upstream takes for 1,000 questions; 0 where it is free"
        )
    host = "127.0.0.1" if asked["host"] in {"0.0.0.0", "::"} else asked["host"]
    shown = f"[{host}]" if ":" in host else host
    upstream = Upstream(
        asked["upstream"].rstrip("/"),
        asked["api_key_env"],
        asked["usd_per_1k"],
        places=_places(asked["replicas"]),
    )
    return Plan(
        folder=asked["out"].resolve(),
        upstream=upstream,
        keep_texts=asked["keep_texts"],
        url=f"http://{shown}:{asked['port']}",
        admin_url=f"http://127.0.0.1:{asked['admin_port']}",
        **more,
    )


def _places(replicas: int | None) -> int:
    """Return how many requests a stage may have out at a time: as many as are passed on."""
    settings = Settings(upstream=UpstreamSettings(url="http://127.0.0.1"), replicas=replicas)
    gateways = settings.gateway_replicas if settings.replicas is None else most(settings.replicas)
    each: int = UpstreamSettings.model_fields["max_in_flight"].default
    return min(MOST_PLACES, each * gateways)


def settings_of(plan: Plan, asked: dict[str, Any]) -> Settings:
    """Return the settings of the gateway in front. Raises UsageError for what they refuse."""
    try:
        return Settings(
            host=asked["host"],
            port=asked["port"],
            admin_port=asked["admin_port"],
            replicas=asked["replicas"],
            state=str(plan.state),
            traffic=TRAFFIC,
            upstream=UpstreamSettings(
                url=plan.upstream.url, key_env=plan.upstream.key_env, usd_per_1k=plan.upstream.usd_per_1k
            ),
            collect=CollectSettings(
                folder=str(plan.collected),
                texts=asked["keep_texts"],
                retention_days=asked["retention_days"],
                redact=tuple(Redaction(pattern=pattern) for pattern in asked["redact"]),
            ),
        )
    except ValidationError as problem:
        raise click.UsageError(first_problem(problem)) from None
