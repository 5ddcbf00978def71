"""What a certificate records of the tuning behind it, so that anybody with the rows can do it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from contract.errors import PolicyError
from contract.policy import Certificate, Policy
from router.tune.settings import TuneSettings
from router.tune.targets import Targets

_STANDS_ELSEWHERE = frozenset(
    {"reference", "teacher", "stands_for", "artifact_sha256", "machine", "created_at", "seed", "certified"}
)
"""Settings that the policy or its certificate says by itself."""


def recorded(targets: Targets, settings: TuneSettings, **more: Any) -> dict[str, Any]:
    """Return targets and settings in JSON's types, with `more` beside them."""
    kept = {name: value for name, value in _told(settings).items() if name not in _STANDS_ELSEWHERE}
    return {"targets": _told(targets), "settings": kept, **more}


def tuning_of(policy: Policy, certificate: Certificate) -> tuple[Targets, TuneSettings]:
    """Return the targets and settings that a policy was tuned with.

    Raises:
        PolicyError: the certificate records none, or some that this release does not know.
    """
    if certificate.tuning is None:
        raise PolicyError(
            "its certificate records no tuning: an earlier release made it, or labels were chosen",
            hint="sluice tune again with this release: the policy will have a new version",
        )
    try:
        targets = Targets(**certificate.tuning["targets"])
        settings = TuneSettings(**certificate.tuning["settings"])
    except (KeyError, TypeError) as problem:
        raise PolicyError(
            f"its certificate records a tuning that this release does not know: {problem}"
        ) from None
    names = settings.variants
    return targets, replace(
        settings,
        variants=None if names is None else tuple(names),
        reference=policy.reference,
        teacher=None if certificate.stands_for is None else policy.reference,
        stands_for=certificate.stands_for,
        artifact_sha256=certificate.variants,
        machine=certificate.machine,
        created_at=certificate.created_at,
        seed=certificate.seed,
    )


def _told(value: Targets | TuneSettings) -> dict[str, Any]:
    """Return what is said, defaults too, since a later release may have others; what is not said is none."""
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: _plain(one) for name, one in held.items() if one not in (None, False, (), {})}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
