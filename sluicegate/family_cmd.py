"""`sluice family`: put a family in force on a running gateway, list what was in force, go back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from contract.policy import read_policy
from serve.control.admin_client import policy_history, push_family, rollback_policy
from sluicegate.admin_options import admin_url_option
from sluicegate.common import FILE, FOLDER, json_option, print_json, result_console


@click.group("family")
def command() -> None:
    """Change which family a running gateway serves, without a restart and without losing a request.

    \b
    Example: sluice family push build/family --policy policy.json
    Example: sluice family history
    Example: sluice family rollback 3
    """


@command.command("push")
@click.argument("family", type=FOLDER)
@click.option(
    "--policy",
    type=FILE,
    help="Goes in force with it. Default: the one in force if its variants are the same builds, else the "
    "reference alone, which is said.",
)
@click.option("--new-labels", is_flag=True, help="The family may have other labels than the one in force.")
@admin_url_option
@json_option
def push(family: Path, policy: Path | None, new_labels: bool, admin_url: str, as_json: bool) -> None:
    """Put a family in force: checked, kept, loaded beside the old one, flipped; then that one is freed.

    The folder is read by the gateway, on its machine (a cluster's head). After any failure everything is as
    it was: a wrong hash, other labels, a variant without a place, too little memory, answers that are not
    those it was measured with, a replica that cannot load it.

    Example: sluice family push build/family --policy policy.json
    """
    given = None if policy is None else read_policy(policy)
    _done(push_family(family, admin_url, policy=given, new_labels=new_labels), as_json)


@command.command("history")
@admin_url_option
@json_option
def history(admin_url: str, as_json: bool) -> None:
    """List the revisions with their families and policies, oldest first.

    Example: sluice family history
    """
    revisions = policy_history(admin_url)
    if as_json:
        print_json(revisions)
        return
    shown = Table()
    for column in ("number", "created_at", "reason", "family", "sha256", "policy", "stages"):
        shown.add_column(column)
    for entry in revisions:
        shown.add_row(
            str(entry["number"]), entry["created_at"], entry["reason"], entry["family"],
            entry["family_sha256"][:12], entry["policy_version"][:12], " -> ".join(entry["stages"]),
        )  # fmt: skip
    result_console.print(shown)


@command.command("rollback")
@click.argument("number", type=click.IntRange(1))
@admin_url_option
@json_option
def rollback(number: int, admin_url: str, as_json: bool) -> None:
    """Put family and policy of an earlier revision in force again, as a new revision.

    Example: sluice family rollback 3
    """
    _done(rollback_policy(number, admin_url), as_json)


def _done(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    revision = result["revision"]
    for words in result.get("said", ()):
        _say(words)
    placed = ", ".join(f"{name} {place}" for name, place in result.get("placed", {}).items())
    _say(
        f"revision {revision['number']}: family {revision['family_name']} {revision['family_sha256'][:12]} "
        f"with policy {revision['policy']['version'][:12]} is in force" + (f"; {placed}" if placed else "")
    )


def _say(line: str) -> None:
    result_console.print(line, highlight=False, markup=False, soft_wrap=True)
