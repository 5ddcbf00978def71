"""Certificate expiry: a certificate speaks of given data and given artifacts, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from contract.policy import Policy

Standing = Literal["certified", "adapted", "expired", "uncertified", "no_safe_threshold"]


def expiry_reasons(
    policy: Policy, artifact_sha256: Mapping[str, str], data_sha256: str | None = None
) -> tuple[str, ...]:
    """Return why the policy's certificate no longer holds; empty while it does (or where there is none).

    `artifact_sha256` is the hash of each variant served now (empty: nothing to compare with);
    `data_sha256`, where given, the hash of the labelled data in use.
    """
    certificate = policy.certificate
    if certificate is None:
        return ()
    reasons = []
    for name, then in certificate.variants.items():
        now = artifact_sha256.get(name)
        if now is None:
            reasons.append(f"variant {name!r} is no longer served")
        elif now != then:
            reasons.append(f"variant {name!r} changed from {then[:12]} to {now[:12]}")
    used = dict.fromkeys([*policy.variants, policy.reference])
    unbound = [name for name in used if name not in certificate.variants] if artifact_sha256 else []
    reasons += [f"variant {name!r} is not bound to a build" for name in unbound]
    if data_sha256 is not None and data_sha256 != certificate.data_sha256:
        reasons.append("the labelled data changed")
    return tuple(reasons)


def standing(
    policy: Policy, artifact_sha256: Mapping[str, str], data_sha256: str | None = None, *, adapted: bool
) -> Standing:
    """Return how the policy in use may be called.

    Its certificate lapses by new artifacts or data, and by adapted thresholds.
    """
    if policy.status != "certified":
        return policy.status
    if expiry_reasons(policy, artifact_sha256, data_sha256):
        return "expired"
    return "adapted" if adapted else "certified"
