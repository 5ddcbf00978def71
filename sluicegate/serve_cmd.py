"""`sluice serve`: the gateway in the foreground."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource
from pydantic import ValidationError

from contract.family import read_family
from contract.records import first_problem
from contract.roster import served_name
from serve.control.bootstrap import planned_slots
from serve.local.launcher import run_until_stopped
from serve.settings.file import Flag, read_settings, settings_of
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.settings.slots import union_of, without_effect
from sluicegate.common import (
    ANY_PATH,
    FILE,
    PLACE,
    PLACES,
    json_option,
    print_json,
    progress_console,
    provider_option,
    watts_option,
)
from sluicegate.extras import require

PORT = click.IntRange(1, 65535)
POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("serve")
@click.argument("families", metavar="[FAMILY]...", type=ANY_PATH, nargs=-1)
@click.option(
    "--settings",
    "settings_file",
    type=FILE,
    help="YAML with every setting, also those without an option; options given here win over it.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be in force, and start nothing.")
@json_option
@click.option(
    "--policy",
    "policies",
    metavar="[NAME=]FILE",
    multiple=True,
    help="Of several families the one of that name. Default: everything goes to the family's teacher.",
)
@click.option("--fake", is_flag=True, help="A small fake family, without weights.")
@click.option("--fake-delay-ms", type=click.FloatRange(min=0), default=0.0, help="Of the fake's last stage.")
@click.option("--fake-error-rate", type=click.FloatRange(0, 1), default=0.0, help="Of the fake's last stage.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address or name of this machine to serve on; 0.0.0.0: every IPv4 address, :: all.",
)
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without keys.")
@click.option("--tls-cert", type=FILE, help="PEM with certificate and chain; with the key, unless --tls-key.")
@click.option("--tls-key", type=FILE, help="PEM with the certificate's key.")
@click.option("--port", type=PORT, default=8000, show_default=True, help="Port to serve on.")
@click.option(
    "--admin-port",
    type=PORT,
    default=8001,
    show_default=True,
    help="On 127.0.0.1, or where the settings say.",
)
@click.option(
    "--state",
    type=PLACE,
    metavar=PLACES,
    help="Keeps the revisions over restarts. Default: none are kept.",
)
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
def command(settings_file: Path | None, dry_run: bool, as_json: bool, **asked: Any) -> None:
    """Serve families, each under its policy, until SIGINT or SIGTERM; then drain and exit 0.

    Of several each has its models, NAME for its cascade and NAME/VARIANT, its policy and its history.

    \b
    Example: sluice serve sluicegate-demo/family --policy sluicegate-demo/policy.json
    Example: sluice serve support orders --policy support=support.json --policy orders=orders.json
    Example: sluice serve --fake --fake-delay-ms 20 --host 0.0.0.0 --insecure
    Example: sluice serve --settings settings.yaml --dry-run
    """
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run")
    if asked["families"] and asked["fake"]:
        raise click.UsageError("give either FAMILY or --fake")
    asked |= _families_of(asked.pop("families"), asked.pop("policies"))
    settings, said = _settings(settings_file, asked)
    if dry_run:
        for words in said:
            _say(words)
        _show(settings, as_json)
        return
    require("sluice serve", "serve")
    say = _say if settings.log.format == "text" else _say_in_json
    for words in said:
        say(words)
    run_until_stopped(settings, say)


FLAGS: dict[str, tuple[str, ...]] = {
    "family": ("family",),
    "families": ("families",),
    "policy": ("policy",),
    "fake_delay_ms": ("fake", "delay_ms"),
    "fake_error_rate": ("fake", "error_rate"),
    "host": ("host",),
    "insecure": ("access", "insecure"),
    "tls_cert": ("tls", "cert"),
    "tls_key": ("tls", "key"),
    "port": ("port",),
    "admin_port": ("admin_port",),
    "state": ("state",),
    "provider": ("provider",),
    "watts_per_core": ("watts_per_core",),
    "replicas": ("replicas",),
    "threads": ("stage", "threads"),
    "max_body_mib": ("limits", "max_body_bytes"),
    "max_characters": ("limits", "max_characters"),
}
"""Where each option stands in the settings."""


def _settings(file: Path | None, asked: dict[str, Any]) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings of file and command line, and in words what the command line has replaced."""
    context = click.get_current_context()
    named = asked["family"] is not None or asked["families"] is not None
    fakes = asked["fake"] or (file is not None and not named)
    flags = []
    for name, keys in FLAGS.items():
        given = asked[name] is not None
        if name not in _OF_FAMILIES:
            given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if keys[0] == "fake" and given and not fakes:
            raise click.UsageError(f"{_option(context, name)} goes with --fake, not with FAMILY")
        if keys[0] == "fake" and (not fakes or not (given or asked["fake"])):
            continue
        if given or keys[0] == "fake":
            flags.append(Flag(_option(context, name), keys, _value(name, asked[name]), not given))
    if file is None:
        if not named and not asked["fake"]:
            raise click.UsageError(
                "give either FAMILY or --fake, or --settings FILE that names one of the two"
            )
        try:
            return settings_of(tuple(flags)), ()
        except ValidationError as problem:
            raise click.UsageError(first_problem(problem)) from None
    instead = {
        "fake": ("family", "families"),
        "family": ("fake", "families"),
        "families": ("fake", "family", "policy"),
    }
    chosen = next((name for name in instead if asked[name]), None)
    return read_settings(file, tuple(flags), without=instead.get(chosen or "", ()))


_OF_FAMILIES = ("family", "families", "policy")


def _families_of(folders: tuple[Path, ...], policies: tuple[str, ...]) -> dict[str, Any]:
    """Return `family`, `families` and `policy` as settings have them, None for what is not given."""
    found: dict[str, Any] = dict.fromkeys(_OF_FAMILIES)
    if len(folders) < 2:
        if len(policies) > 1:
            raise click.UsageError("one family has one --policy")
        found["family"] = str(folders[0].resolve()) if folders else None
        found["policy"] = _file(policies[0]) if policies else None
        return found
    by_name = dict(_named(policy) for policy in policies)
    names = [served_name(read_family(folder, verify=False).name) for folder in folders]
    if strange := [name for name in by_name if name not in names]:
        raise click.UsageError(f"--policy {strange[0]}=...: the families are {', '.join(names)}")
    found["families"] = [
        {"path": str(folder.resolve()), "policy": by_name.get(name)}
        for folder, name in zip(folders, names, strict=True)
    ]
    return found


def _named(policy: str) -> tuple[str, str]:
    name, equals, file = policy.partition("=")
    if not equals:
        raise click.UsageError(f"--policy {policy}: of several families, say which: NAME={policy}")
    return name, _file(file)


def _file(name: str) -> str:
    return str(Path(FILE.convert(name, None, click.get_current_context())).resolve())


def _value(name: str, value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    return int(value * 2**20) if name == "max_body_mib" else value


def _option(context: click.Context, name: str) -> str:
    if name in _OF_FAMILIES:
        return "--policy" if name == "policy" else "FAMILY"
    found = next(parameter for parameter in context.command.params if parameter.name == name)
    return found.opts[0] if isinstance(found, click.Option) else name.upper()


def _show(settings: Settings, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        slots = planned_slots(settings, Path(folder))
    for words in without_effect(settings, union_of(slots.values())):
        _say(words)
    parts = {"inline", "own", "shelf"}
    shown = {name: found.model_dump(mode="json", include=parts) for name, found in slots.items()}
    alone = next(iter(shown.values())) if len(shown) == 1 else shown
    told = {"settings": settings.model_dump(mode="json"), "slots": alone}
    if as_json:
        print_json(told)
    else:
        click.echo(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), nl=False)


def _say(words: str) -> None:
    progress_console.print(words, highlight=False, soft_wrap=True)


def _say_in_json(words: str) -> None:
    """Say it as a line of a log that some other program reads."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    click.echo(json.dumps({"at": at, "level": "info", "event": words, "logger": "sluice.serve"}), err=True)
