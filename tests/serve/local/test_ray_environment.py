"""The environment of a run: what of this process's own reaches Ray, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.ray_environment import ray_environment

FRONT = FrontEnd("127.0.0.1", 8000, (Address("127.0.0.1"),), (), 100)


@pytest.mark.parametrize(
    "name",
    ["HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy", "no_proxy",
     "RAY_ADDRESS", "RAY_SERVE_HAPROXY_MAXCONN", "SERVE_SOCKET_REUSE_PORT_ENABLED"],
)  # fmt: skip
def test_what_would_steer_ray_or_its_connections_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Proxies and switches of the operator's shell do not reach a run; everything else does."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    environment = ray_environment(tmp_path, FRONT)
    assert "http://127.0.0.1:9" not in environment.values()
    assert environment["SOMETHING_ELSE"] == "kept"


def test_the_token_is_the_owners_alone(tmp_path: Path) -> None:
    """Whoever can read the token can call the replicas, so nobody else can."""
    ray_environment(tmp_path, FRONT)
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0
