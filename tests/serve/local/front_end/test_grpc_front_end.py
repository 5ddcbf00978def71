"""gRPC at the front door, by the rewritten configuration: real HAProxy, a real gRPC client, no replica."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from serve.local.front_end.certificates import install_certificate
from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.install import find_haproxy
from serve.local.front_end.rewrite import UNAVAILABLE, rewrite
from serve.settings.tls import TlsSettings
from tests.ports import free_port
from tests.serve.local.front_end.authority import Authority
from tests.serve.local.front_end.rays import PORT, rays_configuration

RAYS_GRPC_PORT = 9000


@contextmanager
def front_door(folder: Path, tls: TlsSettings | None = None) -> Iterator[int]:
    """HAProxy with gRPC on loopback; give the port."""
    port = free_port()
    front = replace(
        FrontEnd("127.0.0.1", PORT, (Address("127.0.0.1"),), (), 100),
        tls=None if tls is None else install_certificate(tls, folder),
        grpc_port=RAYS_GRPC_PORT,
    )
    unavailable = folder / "503.http"
    unavailable.write_text(UNAVAILABLE, newline="")
    written = rewrite(rays_configuration(folder, grpc=True), front, str(unavailable))
    written = written.replace(f"bind 127.0.0.1:{PORT}", f"bind 127.0.0.1:{free_port()}")
    written = written.replace(f"bind 127.0.0.1:{RAYS_GRPC_PORT}", f"bind 127.0.0.1:{port}")
    config = folder / "haproxy.cfg"
    config.write_text(written)
    with subprocess.Popen([find_haproxy(), "-db", "-f", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.kill()


def asked(channel: Any, path: str = "/inference.GRPCInferenceService/ServerLive") -> Any:
    """A call through that channel, once HAProxy listens and it has ended."""
    method = channel.unary_unary(path)
    call = method.future(b"", timeout=20, wait_for_ready=True)
    call.code()
    return call


def test_without_a_replica_a_call_is_to_be_tried_again(tmp_path: Path) -> None:
    """UNAVAILABLE, which clients know to repeat, and not Ray's NOT_FOUND."""
    with front_door(tmp_path) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = asked(channel)
        assert call.code() == grpc.StatusCode.UNAVAILABLE
        assert call.details() == "not serving: try again"


@pytest.mark.parametrize("method", ["ListApplications", "Healthz"])
def test_rays_own_methods_are_closed(tmp_path: Path, method: str) -> None:
    """Ray's proxy in reserve would tell them to whoever asks, with a key or without."""
    with front_door(tmp_path) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert asked(channel, f"/ray.serve.RayServeAPIService/{method}").details() == "no such method"


@pytest.mark.parametrize("with_certificate", [True, False])
def test_tls_and_client_certificates_hold_for_grpc_too(tmp_path: Path, with_certificate: bool) -> None:
    """The port speaks TLS as the front door does, and asks for certificates where that does."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("front", "127.0.0.1")
    own, own_key = authority.issue("client")
    settings = TlsSettings(cert=str(cert), key=str(key), client_ca=str(authority.ca))
    shown = (own_key.read_bytes(), own.read_bytes()) if with_certificate else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), *shown)
    with (
        front_door(tmp_path, settings) as port,
        grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel,
    ):
        code = asked(channel).code()
    expected = grpc.StatusCode.UNAVAILABLE if with_certificate else grpc.StatusCode.UNAUTHENTICATED
    assert code == expected
