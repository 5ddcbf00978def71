"""`sluice policy canary`, `shadow`, `promote`, `withdraw`: candidates beside the policy in force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from contract.errors import InputError
from contract.family import MANIFEST
from contract.policy import read_policy
from contract.records import first_problem
from contract.roster import check_served_name
from contract.trial import TrialKind, VerdictRule
from serve.control.admin_client import begin_trial, end_trial, list_families, show_trials
from sluicegate.admin_options import admin_url_option, family_option
from sluicegate.common import FILE, FOLDER, json_option, print_json
from sluicegate.revisions import say

F = TypeVar("F", bound=Callable[..., Any])
KIND = click.Choice(["canary", "shadow"])


def _rule_options(function: F) -> F:
    """Add what a trial and its verdict are told."""
    for decorate in reversed(
        (
            click.option("--share", type=float, required=True, help="Of requests, above 0, at most 1."),
            click.option(
                "--candidate", type=FOLDER, help="The candidate's family. [default: the one in force]"
            ),
            click.option(
                "--no-worse-than",
                type=float,
                help="Largest drop that may be; a fraction: 0.01 is one point.  [default: 0.01]",
            ),
            click.option(
                "--confidence",
                type=float,
                help="A wrong verdict of either kind has at most the rest as its chance.  [default: 0.9]",
            ),
            click.option(
                "--measured-by",
                type=click.Choice(["reference", "agreement"]),
                help="Where the two differ, who agrees with the reference; or that they differ at all.  "
                "[default: reference]",
            ),
            click.option(
                "--audit-share",
                type=float,
                help="Share of differing texts that are put to the reference.  [default: 1.0]",
            ),
            click.option("--max-error-rate", type=float, help="Withdraw when surely more requests fail."),
            click.option(
                "--auto", "auto", flag_value="both", help="Promote and withdraw by the verdict alone."
            ),
            click.option(
                "--auto-withdraw", "auto", flag_value="withdraw", help="Only withdraw by the verdict alone."
            ),
            click.option("--no-auto", "auto", flag_value="off", help="The verdict only tells."),
            click.option("--anew", is_flag=True, help="Begin again, without the counts so far."),
        )
    ):
        function = decorate(function)
    return function


@click.command("canary")
@click.argument("policy", type=FILE)
@_rule_options
@click.option("--objective-ms", type=float, help="Withdraw when its p99 is surely beyond.")
@family_option
@admin_url_option
@json_option
def canary(policy: Path, family: str | None, admin_url: str, as_json: bool, **asked: Any) -> None:
    """Let a policy answer a share of requests; the same sticky key always meets the same arm.

    Its answers are held against those that the policy in force would have given, off the path. The same
    policy again goes on with its keys, its counts, and all that is not said anew.

    \b
    Example: sluice policy canary new.json --share 0.05
    Example: sluice policy canary new.json --share 0.2 --no-worse-than 0.01 --auto --objective-ms 50
    """
    _begin("canary", policy, family, admin_url, as_json, asked)


@click.command("shadow")
@click.argument("policy", type=FILE)
@_rule_options
@family_option
@admin_url_option
@json_option
def shadow(policy: Path, family: str | None, admin_url: str, as_json: bool, **asked: Any) -> None:
    """Show a policy a copy of a share of requests, off their path: clients see nothing of it.

    \b
    Example: sluice policy shadow new.json --share 0.5
    Example: sluice policy shadow new.json --share 1 --measured-by agreement --no-worse-than 0.02 --auto
    """
    _begin("shadow", policy, family, admin_url, as_json, asked)


@click.command("promote")
@click.argument("kind", type=KIND, required=False)
@family_option
@admin_url_option
@json_option
def promote(kind: TrialKind | None, family: str | None, admin_url: str, as_json: bool) -> None:
    """Put the candidate on trial in force, as a new revision that carries the counts so far.

    \b
    Example: sluice policy promote
    Example: sluice policy promote shadow
    """
    _end(kind, "promote", family, admin_url, as_json)


@click.command("withdraw")
@click.argument("kind", type=KIND, required=False)
@family_option
@admin_url_option
@json_option
def withdraw(kind: TrialKind | None, family: str | None, admin_url: str, as_json: bool) -> None:
    """End the trial; the policy in force stays, and the new revision carries the counts so far.

    Example: sluice policy withdraw
    """
    _end(kind, "withdraw", family, admin_url, as_json)


def say_trials(trials: list[dict[str, Any]]) -> None:
    """Tell each trial: its share, its arms, and its verdict so far."""
    for trial in trials:
        verdict, rule = trial["verdict"], trial["rule"]
        say(
            f"{trial['kind']} {trial['policy_version'][:12]}: share {trial['share']:g}, "
            f"since {trial['since']}, auto {trial['auto']}"
        )
        for arm, figures in trial["arms"].items():
            say(f"  {arm}: {_figures(figures)}")
        pairs = trial["counts"]["pairs"]
        agreement = trial["agreement"]
        say(
            f"  {verdict['n']} texts compared"
            + ("" if agreement is None else f", {agreement:.2%} answered alike")
            + f"; not compared: {pairs['shed']} no room, {pairs['busy']} machine busy"
        )
        if 100 * verdict["n"] < pairs["shed"] + pairs["busy"]:
            say(
                "  fewer than one text in a hundred is compared: the gateway is never idle enough "
                "(traffic.canary_texts_per_s, traffic.beside_texts)"
            )
        drop = "unknown" if verdict["drop"] is None else f"{verdict['drop']:.4f}"
        say(
            f"  verdict: {trial['says']} (drop {drop}; {verdict['drop_low']:.4f} to "
            f"{verdict['drop_high']:.4f}, each at {rule['confidence']:.0%}; limit {rule['no_worse_than']:g})"
        )


def _figures(figures: dict[str, Any]) -> str:
    shown = {
        "error_rate": "{:.2%} fail",
        "escalation_rate": "{:.1%} escalate",
        "degraded_rate": "{:.1%} degraded",
        "p99_ms": "p99 up to {:.3g} ms",
        "usd_per_1k": "{:.4g} USD per 1,000",
    }
    told = [form.format(figures[key]) for key, form in shown.items() if figures[key] is not None]
    return ", ".join(told) or "nothing yet"


def _begin(
    kind: TrialKind, policy: Path, family: str | None, admin_url: str, as_json: bool, asked: dict[str, Any]
) -> None:
    share, candidate = asked.pop("share"), asked.pop("candidate")
    if candidate is None and family is not None and _is_folder(family, admin_url):
        candidate, family = Path(family), None
    auto, anew = asked.pop("auto"), asked.pop("anew")
    if not 0 < share <= 1:
        raise InputError(f"--share {share:g} is not above 0 and at most 1")
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        VerdictRule(**given)
    except ValidationError as problem:
        raise InputError(first_problem(problem)) from None
    body = {
        "policy": read_policy(policy).dump(),
        "family": None if candidate is None else str(candidate.resolve()),
        "share": share,
        "rule": given,
        "auto": auto,
        "anew": anew,
    }
    result = begin_trial(kind, body, admin_url, family=family)
    _done(result, as_json)
    if not as_json:
        say(f"  {_how_it_began(kind, result['revision'])}")


def _is_folder(family: str, admin_url: str) -> bool:
    """Return whether a word can only be a folder, as it was before gateways had several families."""
    if not (Path(family) / MANIFEST).is_file():
        return False
    try:
        check_served_name(family)
    except ValueError:
        return True
    return all(one["served_as"] != family for one in list_families(admin_url)["families"])


def _how_it_began(kind: TrialKind, revision: dict[str, Any]) -> str:
    if revision[kind]["since_revision"] != revision["number"]:
        return "goes on with its keys, its counts and its rule"
    ended = [ruling for ruling in revision["rulings"] if ruling["kind"] == kind]
    dropped = "".join(
        f", in place of {ruling['candidate']['policy']['version'][:12]} and its "
        f"{ruling['verdict']['n']} texts compared"
        for ruling in ended
    )
    return f"begins{dropped}"


def _end(kind: TrialKind | None, ending: str, family: str | None, admin_url: str, as_json: bool) -> None:
    if kind is None:
        there = [str(trial["kind"]) for trial in show_trials(admin_url, family=family)]
        if len(there) != 1:
            found = "both a canary and a shadow are" if there else "no candidate is"
            raise InputError(
                f"{found} on trial", hint=f"sluice policy {ending} canary" if there else "sluice policy show"
            )
        _done(end_trial(there[0], ending, admin_url, family=family), as_json)
        return
    _done(end_trial(kind, ending, admin_url, family=family), as_json)


def _done(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    revision = result["revision"]
    say(f"revision {revision['number']}: {revision['reason']}")
