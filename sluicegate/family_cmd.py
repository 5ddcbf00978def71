"""`sluice family`: put a family in force on a running gateway, list what was in force, go back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from contract.policy import read_policy
from serve.control.admin_client import (
    list_families,
    load_family,
    push_family,
    rollback_policy,
    unload_family,
)
from sluicegate.admin_options import admin_url_option, family_option
from sluicegate.common import FILE, FOLDER, json_option, print_json
from sluicegate.family_add import command as add_command
from sluicegate.revisions import POLICY, STAGES, WHEN, Columns, say, show_history

FAMILY: Columns = {
    "family": lambda entry: str(entry["family"]),
    "sha256": lambda entry: str(entry["family_sha256"][:12]),
}


@click.group("family")
def command() -> None:
    """Add to a family; change which families a running gateway serves without losing a request.

    \b
    Example: sluice family push build/family --policy policy.json
    Example: sluice family load build/orders --policy orders.json
    Example: sluice family unload orders
    Example: sluice family history
    Example: sluice family rollback 3
    Example: sluice family add build/family large.yaml --name large --max-usd 5
    """


@command.command("list")
@admin_url_option
@json_option
def list_(admin_url: str, as_json: bool) -> None:
    """List the families that are served, each with the revision, family and policy in force.

    Example: sluice family list
    """
    told = list_families(admin_url)
    if as_json:
        print_json(told)
        return
    if not told["families"]:
        say("no family is served")
    alone = len(told["families"]) == 1 and told["plain"] is None
    for entry in told["families"]:
        revision, plain = entry["revision"], entry["served_as"] == told["plain"] or alone
        say(
            f"{entry['served_as']}: family {entry['family']['name']} {entry['family']['sha256'][:12]}, "
            f"revision {revision['number']}, policy {revision['policy_version'][:12]} {revision['status']}, "
            f"{' -> '.join(revision['stages'])}" + ("; also asked as cascade" if plain else "")
        )
    _say_reserved(told)


def _say_reserved(told: dict[str, Any]) -> None:
    plain = told["plain"]
    if plain is not None and all(entry["served_as"] != plain for entry in told["families"]):
        say(
            f"short names such as cascade stay {plain}'s, and are refused until it is loaded again; "
            "a start with other families gives them up"
        )


@command.command("load")
@click.argument("folder", metavar="FAMILY", type=FOLDER)
@click.option("--as", "name", metavar="NAME", help="Serve it under this name. [default: its own]")
@click.option("--policy", type=FILE, help="Of the family. [default: its reference alone]")
@admin_url_option
@json_option
def load(folder: Path, name: str | None, policy: Path | None, admin_url: str, as_json: bool) -> None:
    """Serve one more family beside those that are: checked, kept, loaded everywhere, then offered.

    Its models are NAME, which is its cascade, and NAME/VARIANT. It has a policy, a history and trials of its
    own. The folder is read by the gateway, on its machine (a cluster's head).

    \b
    Example: sluice family load build/orders --policy orders.json
    Example: sluice family load build/orders --as orders-2
    """
    given = None if policy is None else read_policy(policy)
    _done(load_family(folder, admin_url, name=name, policy=given), as_json)


@command.command("unload")
@click.argument("name")
@admin_url_option
@json_option
def unload(name: str, admin_url: str, as_json: bool) -> None:
    """Serve a family no longer; its requests under way are answered, and its history stays.

    Example: sluice family unload orders
    """
    result = unload_family(name, admin_url)
    if as_json:
        print_json(result)
        return
    say(f"{name} is served no longer; served: {', '.join(result['served']) or 'no family'}")
    _say_reserved(list_families(admin_url))


@command.command("push")
@click.argument("folder", metavar="FAMILY", type=FOLDER)
@click.option(
    "--policy",
    type=FILE,
    help="Goes in force with it. Default: the one in force if its variants are the same builds, else the "
    "reference alone, which is said.",
)
@click.option("--new-labels", is_flag=True, help="The family may have other labels than the one in force.")
@family_option
@admin_url_option
@json_option
def push(
    folder: Path,
    policy: Path | None,
    new_labels: bool,
    family: str | None,
    admin_url: str,
    as_json: bool,
) -> None:
    """Put a family in force: checked, kept, loaded beside the old one, flipped; then that one is freed.

    The folder is read by the gateway, on its machine (a cluster's head). After any failure everything is as
    it was: a wrong hash, other labels, a variant without a place, too little memory, answers that are not
    those it was measured with, a replica that cannot load it.

    Example: sluice family push build/family --policy policy.json
    """
    given = None if policy is None else read_policy(policy)
    _done(push_family(folder, admin_url, policy=given, new_labels=new_labels, family=family), as_json)


command.add_command(add_command)


@command.command("history")
@family_option
@admin_url_option
@json_option
def history(family: str | None, admin_url: str, as_json: bool) -> None:
    """List the revisions with their families and policies, oldest first.

    Example: sluice family history
    """
    show_history(admin_url, family, (WHEN, FAMILY, POLICY, STAGES), as_json=as_json)


@command.command("rollback")
@click.argument("number", type=click.IntRange(1))
@family_option
@admin_url_option
@json_option
def rollback(number: int, family: str | None, admin_url: str, as_json: bool) -> None:
    """Put family and policy of an earlier revision in force again, as a new revision.

    Example: sluice family rollback 3
    """
    _done(rollback_policy(number, admin_url, family=family), as_json)


def _done(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    revision = result["revision"]
    for words in result.get("said", ()):
        say(words)
    placed = ", ".join(f"{name} {place}" for name, place in result.get("placed", {}).items())
    say(
        (f"{result['served_as']}: " if "served_as" in result else "")
        + f"revision {revision['number']}: family {revision['family_name']} {revision['family_sha256'][:12]} "
        f"with policy {revision['policy']['version'][:12]} is in force" + (f"; {placed}" if placed else "")
    )
