"""`sluice policy`: show, push, list and roll back the policy of a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from contract.policy import read_policy
from serve.control.admin_client import (
    policy_history,
    push_policy,
    rollback_policy,
    show_policy,
    show_trials,
)
from sluicegate import trial_cmds
from sluicegate.admin_options import admin_url_option
from sluicegate.common import FILE, json_option, print_json, result_console
from sluicegate.trial_cmds import say_trials


@click.group("policy")
def command() -> None:
    """Change what a running gateway serves, without a restart. Every change is a numbered revision.

    \b
    Example: sluice policy show
    Example: sluice policy push policy.json
    Example: sluice policy rollback 1
    Example: sluice policy canary new.json --share 0.05
    """


for _of_trials in (trial_cmds.canary, trial_cmds.shadow, trial_cmds.promote, trial_cmds.withdraw):
    command.add_command(_of_trials)


@command.command("show")
@admin_url_option
@json_option
def show(admin_url: str, as_json: bool) -> None:
    """Show the policy in force, and the candidates on trial beside it: both arms, and the verdict so far.

    Example: sluice policy show --json
    """
    revision, trials = show_policy(admin_url), show_trials(admin_url)
    if as_json:
        print_json({**revision, "trials": trials})
        return
    policy = revision["policy"]
    _say(f"revision {revision['number']} ({revision['reason']}, {revision['created_at']})")
    _say(f"policy {policy['version'][:12]}: {policy['status']}, reference {policy['reference']}")
    for stage in policy["stages"]:
        threshold = stage["threshold"]
        rule = (
            "answers everything" if threshold is None else f"answers when {stage['score']} >= {threshold:.6g}"
        )
        _say(f"  {stage['variant']}: {rule}")
    say_trials(trials)


@command.command("push")
@click.argument("policy", type=FILE)
@admin_url_option
@json_option
def push(policy: Path, admin_url: str, as_json: bool) -> None:
    """Put a policy in force on every replica; a policy that does not fit is refused and nothing changes.

    Example: sluice policy push policy.json
    """
    _done(push_policy(read_policy(policy), admin_url), as_json)


@command.command("history")
@admin_url_option
@json_option
def history(admin_url: str, as_json: bool) -> None:
    """List the revisions, oldest first.

    Example: sluice policy history
    """
    revisions = policy_history(admin_url)
    if as_json:
        print_json(revisions)
        return
    shown = Table()
    for column in ("number", "created_at", "reason", "policy", "status", "stages"):
        shown.add_column(column)
    for entry in revisions:
        shown.add_row(
            str(entry["number"]), entry["created_at"], entry["reason"], entry["policy_version"][:12],
            entry["status"], " -> ".join(entry["stages"]),
        )  # fmt: skip
    result_console.print(shown)


@command.command("rollback")
@click.argument("number", type=click.IntRange(1))
@admin_url_option
@json_option
def rollback(number: int, admin_url: str, as_json: bool) -> None:
    """Put policy and family of an earlier revision in force again, as a new revision.

    Example: sluice policy rollback 3
    """
    _done(rollback_policy(number, admin_url), as_json)


def _done(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    revision = result["revision"]
    _say(f"revision {revision['number']}: policy {revision['policy']['version'][:12]} is in force")


def _say(line: str) -> None:
    result_console.print(line, highlight=False, markup=False, soft_wrap=True)
