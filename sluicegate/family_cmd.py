"""`sluice family`: put a family in force on a running gateway, list what was in force, go back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from contract.policy import read_policy
from serve.control.admin_client import push_family, rollback_policy
from sluicegate.admin_options import admin_url_option
from sluicegate.common import FILE, FOLDER, json_option, print_json
from sluicegate.revisions import POLICY, STAGES, WHEN, Columns, say, show_history

FAMILY: Columns = {
    "family": lambda entry: str(entry["family"]),
    "sha256": lambda entry: str(entry["family_sha256"][:12]),
}


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
    show_history(admin_url, (WHEN, FAMILY, POLICY, STAGES), as_json=as_json)


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
        say(words)
    placed = ", ".join(f"{name} {place}" for name, place in result.get("placed", {}).items())
    say(
        f"revision {revision['number']}: family {revision['family_name']} {revision['family_sha256'][:12]} "
        f"with policy {revision['policy']['version'][:12]} is in force" + (f"; {placed}" if placed else "")
    )
