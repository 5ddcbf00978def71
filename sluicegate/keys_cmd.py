"""`sluice keys`: make, list, rotate and revoke the keys that clients and operators show."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError
from rich.table import Table

from contract.errors import InputError
from contract.records import first_problem
from serve.access.key_store import open_keys
from serve.access.keys import KeyLimits, Scope, made, shown
from serve.control import admin_client
from serve.settings.gateway import S3
from sluicegate.common import PLACE, json_option, print_json, result_console

F = TypeVar("F", bound=Callable[..., Any])
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[timedelta]):
    """A time like 90s, 15m, 1h or 2d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the time that was written."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is no time: a number and s, m, h or d, like 1h", param, ctx)
        seconds = int(found[1]) * _UNITS[found[2]]
        if seconds > 366 * _UNITS["d"]:
            self.fail("at most 366d", param, ctx)
        return timedelta(seconds=seconds)


def _where(function: F) -> F:
    """Add `--state` and `--admin-url`."""
    for decorate in (
        click.option("--admin-url", help=f"The gateway's admin port. [default: {admin_client.DEFAULT_URL}]"),
        click.option(
            "--state",
            type=PLACE,
            help="State directory or s3://BUCKET/PREFIX, whether a gateway runs on it or not.",
        ),
    ):
        function = decorate(function)
    return function


@click.group("keys")
def command() -> None:
    """Say who may ask, and how much. From its first key on, a gateway answers nobody without one.

    Names go into metrics and logs; a key is shown once and kept as a hash. A running gateway follows within
    two seconds.

    \b
    Example: sluice keys create web --scope infer --rate 50 --usd-per-day 20 --state state
    Example: sluice keys rotate web --overlap 1h
    Example: sluice keys revoke web
    """


@command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["infer", "admin"]),
    multiple=True,
    default=("infer",),
    show_default=True,
    help="What the key is for; may be given twice.",
)
@click.option("--rate", type=float, help="Requests a second. A request of N texts counts as N.")
@click.option("--burst", type=float, help="Requests at once. [default: those of one second]")
@click.option("--requests-per-day", type=int, help="Daily quota (UTC).")
@click.option("--usd-per-day", type=float, help="Daily quota, by the costs of the stages that ran.")
@_where
@json_option
def create(
    name: str,
    scopes: tuple[Scope, ...],
    state: str | None,
    admin_url: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Make a key and show it, once: on stdout the key alone.

    \b
    Example: sluice keys create web --rate 50 --burst 100 --state state
    Example: sluice keys create ops --scope admin
    """
    try:
        limits = KeyLimits(
            rate_per_s=asked["rate"],
            burst=asked["burst"],
            requests_per_day=asked["requests_per_day"],
            usd_per_day=asked["usd_per_day"],
        )
    except ValidationError as problem:
        raise click.UsageError(first_problem(problem)) from None
    if (folder := _folder(state, admin_url)) is not None:
        _new(made(*open_keys(folder).create(name, scopes, limits)), as_json)
    else:
        _new(admin_client.create_key(name, scopes, limits, admin_url or admin_client.DEFAULT_URL), as_json)


@command.command("list")
@_where
@json_option
def list_(state: str | None, admin_url: str | None, as_json: bool) -> None:
    """List the keys, revoked ones too.

    Example: sluice keys list --state state
    """
    if (folder := _folder(state, admin_url)) is not None:
        _check_is_there(folder)
        keys = shown(open_keys(folder).latest())
    else:
        keys = admin_client.list_keys(admin_url or admin_client.DEFAULT_URL)
    if as_json:
        print_json(keys)
        return
    table = Table()
    for column in ("name", "id", "scopes", "limits", "created_at", "state"):
        table.add_column(column)
    for key in keys:
        limits = ", ".join(f"{name} {value:g}" for name, value in key["limits"].items() if value is not None)
        table.add_row(
            key["name"],
            key["id"],
            ", ".join(key["scopes"]),
            limits or "none",
            key["created_at"],
            _state_of(key),
        )
    result_console.print(table)


@command.command("rotate")
@click.argument("name")
@click.option(
    "--overlap", type=Duration(), default="1h", show_default=True, help="How long the old key is valid still."
)
@_where
@json_option
def rotate(name: str, overlap: timedelta, state: str | None, admin_url: str | None, as_json: bool) -> None:
    """Make a new key for a name, with the same scopes and limits; the old one expires after the overlap.

    Example: sluice keys rotate web --overlap 1h
    """
    if (folder := _folder(state, admin_url)) is not None:
        _check_is_there(folder)
        _new(made(*open_keys(folder).rotate(name, overlap)), as_json)
    else:
        _new(admin_client.rotate_key(name, overlap, admin_url or admin_client.DEFAULT_URL), as_json)


@command.command("revoke")
@click.argument("name")
@_where
@json_option
def revoke(name: str, state: str | None, admin_url: str | None, as_json: bool) -> None:
    """Make the keys of a name invalid. The gateway goes on to ask for keys, even if none is left.

    Example: sluice keys revoke web
    """
    if (folder := _folder(state, admin_url)) is not None:
        _check_is_there(folder)
        keys = shown(open_keys(folder).revoke(name))
    else:
        keys = admin_client.revoke_key(name, admin_url or admin_client.DEFAULT_URL)
    if as_json:
        print_json(keys)
    else:
        click.echo(f"{name} is revoked", err=True)


def _folder(state: str | None, admin_url: str | None) -> str | None:
    if state is not None and admin_url is not None:
        raise click.UsageError("give --state or --admin-url, not both")
    return state


def _check_is_there(folder: str) -> None:
    if not folder.startswith(S3) and not Path(folder).is_dir():
        raise InputError("there is no such folder", where=f"--state {folder}", hint="sluice keys create NAME")


def _new(key: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(key)
        return
    click.echo(f"{key['name']} ({', '.join(key['scopes'])}), id {key['id']}; shown this once:", err=True)
    click.echo(key["key"])


def _state_of(key: dict[str, Any]) -> str:
    if key["revoked_at"] is not None:
        return f"revoked {key['revoked_at']}"
    if key["expires_at"] is None:
        return "valid"
    late = datetime.fromisoformat(key["expires_at"]) <= datetime.now(UTC)
    return f"{'expired' if late else 'valid until'} {key['expires_at']}"
