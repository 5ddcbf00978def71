"""`sluice policy`: show, push, list and roll back the policy of a running gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from contract.errors import InputError
from contract.policy import read_policy, write_policy
from serve.control.admin_client import (
    gateway_state,
    push_policy,
    rollback_policy,
    shift_gear,
    show_policy,
    show_trials,
)
from sluicegate import trial_cmds
from sluicegate.admin_options import admin_url_option, family_option
from sluicegate.common import FILE, json_option, print_json
from sluicegate.revisions import POLICY, STAGES, WHEN, Columns, say, show_history
from sluicegate.trial_cmds import say_trials

STATUS: Columns = {"status": lambda entry: str(entry["status"])}


@click.group("policy")
def command() -> None:
    """Change what a running gateway serves, without a restart. Every change is a numbered revision.

    \b
    Example: sluice policy show
    Example: sluice policy push policy.json
    Example: sluice policy rollback 1
    Example: sluice policy gear busy
    Example: sluice policy canary new.json --share 0.05
    Example: sluice policy push policy.json --family support
    Example: sluice policy sign policy.json --key release.key
    """


for _of_trials in (trial_cmds.canary, trial_cmds.shadow, trial_cmds.promote, trial_cmds.withdraw):
    command.add_command(_of_trials)


@command.command("show")
@family_option
@admin_url_option
@json_option
def show(family: str | None, admin_url: str, as_json: bool) -> None:
    """Show the policy in force, and the candidates on trial beside it: both arms, and the verdict so far.

    Example: sluice policy show --json
    """
    revision = show_policy(admin_url, family=family)
    trials = show_trials(admin_url, family=family)
    if as_json:
        print_json({**revision, "trials": trials})
        return
    policy = revision["policy"]
    say(f"revision {revision['number']} ({revision['reason']}, {revision['created_at']})")
    say(f"policy {policy['version'][:12]}: {policy['status']}, reference {policy['reference']}")
    for stage in policy["stages"]:
        threshold = stage["threshold"]
        rule = (
            "answers everything" if threshold is None else f"answers when {stage['score']} >= {threshold:.6g}"
        )
        say(f"  {stage['variant']}: {rule}")
    if policy.get("gears"):
        _say_gears(revision, gateway_state(admin_url, family=family)["replicas"])
    say_trials(trials)


def _say_gears(revision: dict[str, Any], replicas: list[dict[str, Any]]) -> None:
    fixed = revision.get("gear")
    say(f"gears, {'as load asks' if fixed is None else f'fixed to {fixed} by hand'}:")
    for gear in revision["policy"]["gears"]:
        expected = gear["expected"]
        parts = [f"drop under {gear['epsilon'] * 100:.4g} points"]
        if expected["escalation_rate"] is not None:
            parts.append(f"escalates {expected['escalation_rate']:.1%}")
        if expected["usd_per_1k"] is not None:
            parts.append(f"{expected['usd_per_1k']:.4g} USD per 1,000")
        here = sum(replica.get("gear") == gear["name"] for replica in replicas)
        now = f"; {here} of {len(replicas)} replicas now" if here else ""
        say(f"  {gear['name']}: {', '.join(parts)}{now}")


@command.command("push")
@click.argument("policy", type=FILE)
@family_option
@admin_url_option
@json_option
def push(policy: Path, family: str | None, admin_url: str, as_json: bool) -> None:
    """Put a policy in force on every replica; a policy that does not fit is refused and nothing changes.

    Example: sluice policy push policy.json
    """
    _done(push_policy(read_policy(policy), admin_url, family=family), as_json)


@command.command("history")
@family_option
@admin_url_option
@json_option
def history(family: str | None, admin_url: str, as_json: bool) -> None:
    """List the revisions, oldest first.

    Example: sluice policy history
    """
    show_history(admin_url, family, (WHEN, POLICY, STATUS, STAGES), as_json=as_json)


@command.command("rollback")
@click.argument("number", type=click.IntRange(1))
@family_option
@admin_url_option
@json_option
def rollback(number: int, family: str | None, admin_url: str, as_json: bool) -> None:
    """Put policy and family of an earlier revision in force again, as a new revision.

    Example: sluice policy rollback 3
    """
    _done(rollback_policy(number, admin_url, family=family), as_json)


@command.command("gear")
@click.argument("name")
@family_option
@admin_url_option
@json_option
def gear(name: str, family: str | None, admin_url: str, as_json: bool) -> None:
    """Fix the gear of the policy in force, or leave it to load again (auto). A push leaves it to load too.

    \b
    Example: sluice policy gear busy
    Example: sluice policy gear auto
    """
    _done(shift_gear(None if name == "auto" else name, admin_url, family=family), as_json)


@command.command("keygen")
@click.argument("file", type=FILE)
def keygen(file: Path) -> None:
    """Make a key to sign policies with: the private half in FILE, for its owner alone; the public half told.

    Example: sluice policy keygen release.key
    """
    from serve.access.signatures import new_key

    private_key, public_key = new_key()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError("there is a file already", where=file, hint="name another one") from None
    with os.fdopen(descriptor, "w") as opened:
        opened.write(private_key + "\n")
    say(f"{public_key}  (for access.policy_keys in the gateway's settings)")


@command.command("sign")
@click.argument("policy", type=FILE)
@click.option("--key", type=FILE, required=True, help="The private half, as `sluice policy keygen` wrote it.")
@click.option("--out", type=FILE, help="Default: the policy's own file.")
@json_option
def sign(policy: Path, key: Path, out: Path | None, as_json: bool) -> None:
    """Sign a policy. Its version stays: what is signed is that hash of its content.

    Example: sluice policy sign policy.json --key release.key
    """
    from serve.access.signatures import signed

    try:
        private_key = key.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"the key cannot be read: {problem}", where=key) from None
    found = signed(read_policy(policy), private_key)
    write_policy(out or policy, found)
    if as_json:
        print_json(found.dump())
        return
    say(f"policy {found.version[:12]} is signed by {found.signatures[-1].public_key}")


def _done(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    revision = result["revision"]
    say(f"revision {revision['number']}: policy {revision['policy']['version'][:12]} is in force")
