"""What the routes of the admin interface share: which family is asked about, and the form of replies."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from pydantic import field_validator
from starlette.requests import Request

from contract.live import Revision
from serve.control.family_push import FamilyPush
from serve.control.plane import ControlPlane, ReplicaState
from serve.control.trials import TrialControl
from serve.settings.record import Setting

JsonBody = Callable[[Request], Awaitable[Any]]


class FamilyAsked(Setting):
    """A folder on the gateway's machine (a cluster's head), and the policy that goes with it."""

    path: str
    policy: dict[str, Any] | None = None

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not Path(value).is_absolute():
            raise ValueError("the path must be absolute: the gateway does not run in your folder")
        return value


class Line(Protocol):
    """What the interface asks for one family; see FamilyLine."""

    @property
    def plane(self) -> ControlPlane:
        """Decides."""
        ...

    @property
    def push(self) -> FamilyPush:
        """Puts builds of the family in force."""
        ...

    @property
    def trials(self) -> TrialControl:
        """Of candidates."""
        ...

    def describe(self) -> dict[str, Any]:
        """Say what /state tells of the family."""
        ...


LineOf = Callable[[str | None], Line]
"""Gives what the name of a family asks for, without a name the only one; raises PolicyError."""


def summary(revision: Revision) -> dict[str, Any]:
    """Return what a list of revisions says of one."""
    return {
        "number": revision.number,
        "created_at": revision.created_at,
        "reason": revision.reason,
        "policy_version": revision.policy.version,
        "status": revision.policy.status,
        "family": revision.family_name,
        "family_sha256": revision.family_sha256,
        "stages": [stage.variant for stage in revision.policy.stages],
        "trials": {kind: candidate.policy.version for kind, candidate in revision.trials()},
    }


def changes(revision: Revision, replicas: list[ReplicaState]) -> dict[str, Any]:
    """Return what a change is told as: the revision in force, and where each replica is."""
    return {"revision": revision.dump(), "replicas": [dataclasses.asdict(replica) for replica in replicas]}
