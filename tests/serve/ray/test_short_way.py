"""The short way into a replica: what it leaves to Serve, on a real server with a real gateway."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.ray import ingress_middleware
from serve.ray.ingress_middleware import ShortWay
from serve.settings.limits import RequestLimits
from serve.types.recorder import NoRecorder
from tests.serve.parts import FakeFolder, serving, snapshot_of, two_stage_policy


def test_serve_is_left_the_question_for_health_and_no_other_path(
    fake_folder: FakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another spelling of a path of Serve's is the gateway's, which asks for a key and knows no such path."""
    snapshot = snapshot_of(fake_folder, two_stage_policy(), NoRecorder())
    dataplane = DataPlane(lambda: snapshot, RequestLimits(), NoRecorder())
    gateway = Gateway(dataplane, RequestLimits(), NoRecorder(), bytes)
    monkeypatch.setattr(ingress_middleware, "_here", [SimpleNamespace(gateway=gateway, healthy=True)])
    serves_own = FastAPI()
    serves_own.add_middleware(ShortWay)

    @serves_own.get("/{path:path}")
    def told(path: str) -> str:
        return f"Serve tells {path}"

    with serving(serves_own) as url:
        assert httpx.get(f"{url}/-/healthz").json() == "Serve tells -/healthz"
        for path in ("/-/routes", "/%2d/routes", "/%2d/healthz", "/-/healthz/"):
            assert httpx.get(url + path).status_code == 404
