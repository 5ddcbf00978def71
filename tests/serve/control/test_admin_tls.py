"""TLS at the admin interface: the settings of the front door hold there too, on a real server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from contract.errors import EnvironmentProblem
from serve.access.gate import Gate
from serve.control import admin_client, admin_tls
from serve.control.admin_server import serve_admin
from serve.settings.gateway import Settings
from serve.settings.stages import FakeSettings
from serve.settings.tls import TlsSettings
from tests.ports import free_port
from tests.serve.local.front_end.authority import Authority

pytestmark = pytest.mark.anyio


def trusting(authority: Authority) -> ssl.SSLContext:
    """What a client that knows the authority uses."""
    return ssl.create_default_context(cafile=str(authority.ca))


async def health(port: int, context: ssl.SSLContext) -> int:
    """Status of the one page that asks for no key, on a connection of its own."""
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=5) as client:
        return (await client.get(f"https://127.0.0.1:{port}/health")).status_code


@asynccontextmanager
async def admin(tls: TlsSettings) -> AsyncIterator[int]:
    """The interface on all addresses; give the port."""
    port = free_port()
    settings = Settings(fake=FakeSettings(), tls=tls).model_copy(
        update={"admin_host": "0.0.0.0", "admin_port": port}
    )

    async def well(_: object) -> PlainTextResponse:
        return PlainTextResponse("well")

    serving = serve_admin(Starlette(routes=[Route("/health", well)]), Gate(), settings)
    try:
        await asyncio.sleep(0)
        yield port
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_clients_of_the_admin_interface_show_certificates_where_the_settings_say_so(
    tmp_path: Path,
) -> None:
    """Without one, or with a stranger's, nothing is answered; an old protocol is refused."""
    authority, clients = Authority(tmp_path), Authority(tmp_path, "clients")
    cert, key = authority.issue("front", "127.0.0.1")
    tls = TlsSettings(cert=str(cert), key=str(key), client_ca=str(clients.ca), min_version="1.3")
    async with admin(tls) as port:
        known = trusting(authority)
        known.load_cert_chain(*map(str, clients.issue("alice")))
        assert await health(port, known) == 200
        stranger = trusting(authority)
        stranger.load_cert_chain(*map(str, authority.issue("mallory")))
        known.maximum_version = ssl.TLSVersion.TLSv1_2
        for refused in (trusting(authority), stranger, known):
            with pytest.raises(httpx.HTTPError):
                await health(port, refused)


async def test_the_commands_show_their_own_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get as far as the question for a key; a file without a certificate is named."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("front", "127.0.0.1")
    own = tmp_path / "own.pem"
    own.write_bytes(b"".join(file.read_bytes() for file in authority.issue("ops")))
    monkeypatch.setenv(admin_client.CA, str(authority.ca))
    async with admin(TlsSettings(cert=str(cert), key=str(key), client_ca=str(authority.ca))) as port:
        for file, said in ((own, "asks for a key"), (authority.ca, admin_client.CERT)):
            monkeypatch.setenv(admin_client.CERT, str(file))
            with pytest.raises(EnvironmentProblem, match=said):
                await asyncio.to_thread(admin_client.policy_history, f"https://127.0.0.1:{port}")


async def test_the_admin_interface_takes_a_new_certificate_and_keeps_it_when_one_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No restart; half of a pair, or no certificate at all, changes nothing and is looked at again."""
    monkeypatch.setattr(admin_tls, "LOOK_EVERY_S", 0.02)
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = authority.issue("front", "127.0.0.1")
    context = admin_tls.context_of(tls := TlsSettings(cert=str(cert), key=str(key)))
    assert context.verify_mode == ssl.CERT_NONE
    async with admin(tls) as port:
        cert.write_text("no certificate")
        for _ in range(3):
            assert await health(port, trusting(authority)) == 200
        new_cert, new_key = other.issue("new", "127.0.0.1")
        key.write_bytes(new_key.read_bytes())
        cert.write_bytes(new_cert.read_bytes())
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await health(port, trusting(other)) == 200
                    break
                except httpx.ConnectError:
                    continue
