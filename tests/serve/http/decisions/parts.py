"""What the tests of decision endpoints share: gateways on fakes, one of which may stand upstream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from contract.policy import Certificate, Policy, Stage
from serve.access.accounts import Accounts
from serve.access.charging import Charging
from serve.access.gate import Gate
from serve.dataplane.family_planes import FamilyPlanes
from serve.dataplane.front import Plane
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.http.decisions.routes import DecisionRoutes
from serve.settings.decisions import DecisionSettings
from serve.settings.limits import RequestLimits
from serve.settings.upstream import UpstreamSettings
from serve.types.stage import Snapshots
from serve.upstream.client import Listener, Upstream
from tests.serve.parts import FakeFolder, Kept, serving, snapshot_of, two_stage_policy

NEWS = ("business", "entertainment", "politics", "sport", "tech")
POST = ("ham", "spam")
SURE, UNSURE = "sport: story 1", "politics: story 1"


@dataclass(frozen=True)
class Deciding:
    """A gateway that answers decisions."""

    url: str
    recorder: Kept
    gate: Gate


@contextmanager
def deciding(
    fakes: FakeFolder | FamilyPlanes | Snapshots,
    *,
    policy: Policy | None = None,
    settings: dict[str, Any] | None = None,
    upstream: dict[str, Any] | None = None,
    listener: Listener | None = None,
) -> Iterator[Deciding]:
    """Serve a family, a plane, or whatever gives snapshots, with these settings."""
    recorder, limits, accounts = Kept(), RequestLimits(), Accounts("r0", 1)
    gate = Gate(accounts)
    if isinstance(fakes, FakeFolder):
        snapshot = snapshot_of(fakes, policy or two_stage_policy(), recorder)
        dataplane: Plane = DataPlane(lambda: snapshot, limits, Charging(accounts, recorder))
    elif isinstance(fakes, FamilyPlanes):
        dataplane = fakes
    else:
        dataplane = DataPlane(fakes, limits, recorder)
    above = None
    if upstream is not None:
        above = Upstream(UpstreamSettings.model_validate(upstream), listener)
    routes = DecisionRoutes(
        dataplane, limits, recorder, gate, DecisionSettings.model_validate(settings or {}), above
    )
    with serving(Gateway(dataplane, limits, recorder, lambda: b"", gate=gate, decisions=routes)) as url:
        yield Deciding(url, recorder, gate)


def certified() -> Policy:
    """The policy of two stages, with a certificate."""
    found = two_stage_policy()
    certificate = Certificate(
        method="ltt", epsilon=0.02, delta=0.1, n_tune=10, n_certify=10, seed=0, data_sha256="0"
    )
    return found.model_copy(
        update={"status": "certified", "certificate": certificate, "version": ""}
    ).sealed()


def large_alone() -> Policy:
    """The large fake answers everything."""
    return Policy(
        status="uncertified", reference="fake-large", stages=(Stage(variant="fake-large"),)
    ).sealed()


def choice(*values: str | bool, name: str | None = None) -> dict[str, Any]:
    """A question with choices."""
    told: dict[str, Any] = {"type": "choice", "instructions": "?", "choices": [{"value": v} for v in values]}
    return told if name is None else told | {"name": name}


def ask(*questions: dict[str, Any], text: Any = SURE, model: str = "gpt", **more: Any) -> dict[str, Any]:
    """A request."""
    return {"model": model, "input": text, "questions": list(questions), **more}


def decide(
    running: Deciding, body: dict[str, Any], path: str = "/v1/decisions", **headers: str
) -> httpx.Response:
    """Ask."""
    return httpx.post(running.url + path, json=body, headers=headers)
