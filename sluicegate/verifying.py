"""Checks of a policy by somebody who trusts neither us nor the machine: each with what it found, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.errors import SluiceError
from contract.evidence import LiveEvidence
from contract.files import canonical_json
from contract.policy import Certificate, Policy
from router.live.watch import judge
from router.mix.shares import Growing
from router.mix.tune import tune_mix
from router.tune.record import tuning_of
from router.tune.settings import data_hash
from router.tune.tune import tune
from sluicegate.inputs import Table


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    holds: bool
    said: str


def verify_certificate(policy: Policy, table: Table) -> list[Check]:
    """Return what holds of a policy's certificate, worked out again from the rows."""
    certificate = policy.certificate
    if certificate is None:
        return [Check("certificate", False, f"it has none (status {policy.status}): it promises nothing")]
    checks = [
        Check("version", True, f"{policy.version} is the hash of its content"),
        _same_data(certificate, table),
        *_same_builds(certificate, table),
    ]
    return [*checks, _tuned_again(policy, certificate, table)]


def verify_evidence(policy: Policy, evidence: LiveEvidence) -> list[Check]:
    """Return what holds of live evidence about a policy, worked out again from its blocks of audits."""
    about = {evidence.policy_version, evidence.base_version}
    share = 1.0 / (evidence.epoch * (evidence.epoch + 1))
    again, told = judge(evidence.blocks, evidence.rule, share), evidence.standing
    other = [name for name in type(told).model_fields if getattr(again, name) != getattr(told, name)]
    low, high = f"{again.drop_low * 100:+.2f}", f"{again.drop_high * 100:+.2f}"
    return [
        Check("policy", policy.version in about, f"the evidence is about {evidence.policy_version}"),
        Check(
            "live standing",
            not other,
            f"it differs in {', '.join(other)}"
            if other
            else f"the same from its blocks: a drop of {low} to {high} points over {again.texts} texts",
        ),
        Check("alarm", not again.alarm, f"raised by {again.alarm}" if again.alarm else "none was raised"),
    ]


def _same_data(certificate: Certificate, table: Table) -> Check:
    here = data_hash(table.predictions)
    same = here == certificate.data_sha256
    said = f"{here} are the rows that it was certified on"
    if not same:
        said = f"these rows are {here}, and it was certified on {certificate.data_sha256}"
    return Check("data", same, said)


def _same_builds(certificate: Certificate, table: Table) -> list[Check]:
    if table.family is None:
        return []
    found = []
    for name, sha256 in certificate.variants.items():
        here = table.artifacts.get(name)
        said = f"{name} is {sha256}" if here == sha256 else f"{name} is {here}, and {sha256} was certified"
        found.append(Check("build", here == sha256, said))
    return found


def _tuned_again(policy: Policy, certificate: Certificate, table: Table) -> Check:
    name = "tuned again"
    try:
        again = _again(policy, certificate, table)
    except SluiceError as problem:
        return Check(name, False, str(problem))
    before, now = _unsigned(policy), _unsigned(again)
    if canonical_json(before) == canonical_json(now):
        return Check(
            name, True, f"the same policy, byte for byte: {certificate.metric}, p = {certificate.p_value}"
        )
    other = ", ".join(_differing(before, now))
    return Check(name, False, f"another policy comes out (status {again.status}): it differs in {other}")


def _again(policy: Policy, certificate: Certificate, table: Table) -> Policy:
    targets, settings = tuning_of(policy, certificate)
    mix = (certificate.tuning or {}).get("mix")
    if mix is None:
        return tune(table.predictions, table.costs, targets, settings).policy
    growing = None if mix.get("growing") is None else Growing(**mix["growing"])
    return tune_mix(table.predictions, table.costs, targets, settings, mix.get("by"), growing).policy


def _unsigned(policy: Policy) -> dict[str, Any]:
    return {"version": policy.content_sha256(), **policy.content()}


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Return the places at which two JSON objects differ."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        one, other, place = before.get(key), now.get(key), f"{where}{key}"
        if one == other or place == "version":
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differing(one, other, f"{place}.")
        else:
            found.append(place)
    return found
