"""`sluice verify`: what a policy or a state promises, worked out again by somebody who trusts neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from contract.errors import TargetNotMet
from contract.evidence import parse_evidence
from contract.files import read_json
from contract.policy import Policy, read_policy
from sluicegate.common import ANY_PATH, FILE, json_option, print_json, result_console
from sluicegate.inputs import read_table
from sluicegate.verifying import Check, verify_certificate, verify_evidence


@click.command("verify")
@click.argument("policy", type=FILE, required=False)
@click.option("--family", type=ANY_PATH, help="The family that it was tuned on; its builds are compared too.")
@click.option("--predictions", type=ANY_PATH, help="In a family's place: the rows that it was tuned on.")
@click.option("--costs", type=FILE, help="With --predictions: costs.json.")
@click.option("--labels", help="With --predictions: the label set, as for `sluice tune`.")
@click.option(
    "--evidence", type=FILE, help="Live evidence of the policy: its audits, and what they are said to prove."
)
@click.option("--state", help="A gateway's state: whether its revisions are the unbroken chain they claim.")
@json_option
def command(
    policy: Path | None,
    family: Path | None,
    predictions: Path | None,
    costs: Path | None,
    labels: str | None,
    evidence: Path | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Recompute a certificate from rows or live audits, or check the chain of a gateway's revisions.

    The policy is tuned again with what its certificate records, and must come out the same byte for byte.
    Exit code 0: all holds. 3: something does not.

    \b
    Example: sluice verify policy.json --family sluicegate-demo/family
    Example: sluice verify policy.json --predictions p.parquet --costs c.json
    Example: sluice verify policy.json --evidence live.json
    Example: sluice verify --state /var/lib/sluicegate
    """
    if policy is None and state is None:
        raise click.UsageError("give a POLICY with its rows, or --state DIR")
    checks: list[Check] = []
    if policy is not None:
        given = read_policy(policy)
        if evidence is None or family is not None or predictions is not None:
            checks += verify_certificate(given, read_table(family, predictions, costs, labels))
        if evidence is not None:
            found = parse_evidence(read_json(evidence), where=evidence)
            checks += verify_evidence(given, found)
        checks += _signatures(given)
    elif family is not None or predictions is not None or evidence is not None:
        raise click.UsageError("--family, --predictions and --evidence go with a POLICY")
    if state is not None:
        checks += _chains(state)
    holds = all(check.holds for check in checks)
    if as_json:
        told: list[dict[str, Any]] = [{"name": c.name, "holds": c.holds, "said": c.said} for c in checks]
        print_json({"holds": holds, "checks": told})
    else:
        for check in checks:
            mark = "holds " if check.holds else "FAILS "
            result_console.print(
                f"{mark} {check.name}: {check.said}", highlight=False, markup=False, soft_wrap=True
            )
    if not holds:
        raise TargetNotMet("not all of it holds")


def _signatures(policy: Policy) -> list[Check]:
    if not policy.signatures:
        return []
    from serve.access.signatures import verified

    return [
        Check("signature", good, f"{key} {'signed' if good else 'did not sign'} just this policy")
        for key, good in verified(policy)
    ]


def _chains(state: str) -> list[Check]:
    from serve.control.chain import check_chains

    found = []
    for chain in check_chains(state):
        said = "; ".join(chain.breaks) or (
            f"{chain.length} revisions, each with the hash of the one before from {chain.since} on; "
            f"the last is {chain.head_sha256}"
        )
        found.append(Check(f"chain {chain.place}", not chain.breaks, said))
    return found or [Check("chain", False, f"there are no revisions in {state}")]
