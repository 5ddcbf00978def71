"""A gateway on the address of a network card, with keys and TLS, and a dead proxy in the environment.

What listens where, who is answered, and that limits hold over two replicas.
"""

from __future__ import annotations

import os
import re
import signal
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from serve.access.key_store import open_keys
from serve.access.keys import KeyLimits
from serve.control import admin_client
from serve.local import launcher
from serve.local.front_end.addresses import machine_addresses
from serve.local.front_end.install import last_words
from serve.local.listening import lines
from serve.local.processes import SeenProcess
from serve.local.ray_environment import CONTROL_FOLDER
from serve.local.run_folder import processes_of
from serve.settings.tls import TlsSettings
from tests.serve.conftest import fake_settings
from tests.serve.local.front_end.authority import Authority

pytestmark = pytest.mark.ray

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
EVERYWHERE = {"0.0.0.0", "::"}
RATE = 40.0


def card_address() -> str:
    """An address that is not 127.0.0.1: a network card's, or another of loopback where there is no card."""
    for address in machine_addresses():
        if not address.is_link_local and str(address) not in LOOPBACK:
            return str(address)
    return "127.0.0.2"


@dataclass(frozen=True)
class Secured:
    """A running gateway, and what it takes to be answered by it."""

    handle: launcher.Handle
    key: str
    slow_key: str
    trusts: ssl.SSLContext


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The gateway, started by somebody whose shell sends everything to a proxy that is not there."""
    folder = tmp_path_factory.mktemp("secured")
    keys = open_keys(str(folder / "state"))
    key, _ = keys.create("web", ("infer",), KeyLimits())
    slow_key, _ = keys.create("slow", ("infer",), KeyLimits(rate_per_s=RATE))
    admin_key, _ = keys.create("ops", ("admin",), KeyLimits())
    authority = Authority(folder)
    cert, cert_key = authority.issue("front", card_address())
    settings = fake_settings(folder / "state").model_copy(
        update={
            "host": card_address(),
            "admin_host": card_address(),
            "tls": TlsSettings(cert=str(cert), key=str(cert_key)),
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "grpc_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setenv(admin_client.KEY, admin_key)
        patch.setenv(admin_client.CA, str(authority.ca))
        with launcher.start(settings) as started:
            yield Secured(started, key, slow_key, ssl.create_default_context(cafile=str(authority.ca)))


@pytest.fixture
def handle(secured: Secured) -> launcher.Handle:
    """The same gateway."""
    return secured.handle


def listening(handle: launcher.Handle) -> dict[tuple[str, int], SeenProcess]:
    """Every address and port on which a process of the run listens; HAProxy where it shares a socket."""
    found: dict[tuple[str, int], SeenProcess] = {}
    for process in sorted(processes_of(handle.folder), key=lambda one: "haproxy" in one.name):
        with suppress(psutil.Error):  # a process may end meanwhile
            for connection in psutil.Process(process.pid).net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr:
                    found[connection.laddr.ip, connection.laddr.port] = process
    return found


def ask(secured: Secured, url: str = "") -> dict[str, Any]:
    """Answer of /v1/classify."""
    reply = httpx.post(
        f"{url or secured.handle.url}/v1/classify",
        json={"inputs": ["a text"]},
        headers={"authorization": f"Bearer {secured.key}"},
        timeout=30,
        trust_env=False,
        verify=secured.trusts,
    )
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def front_end(handle: launcher.Handle) -> SeenProcess:
    """The HAProxy that serves now."""
    port = httpx.URL(handle.url).port
    assert port is not None
    return listening(handle)[card_address(), port]


def test_a_network_cards_address_answers_and_no_other(secured: Secured) -> None:
    """Requests are answered at the address asked for, and loopback refuses them."""
    url = httpx.URL(secured.handle.url)
    assert (url.scheme, url.host) == ("https", card_address())
    assert ask(secured)["outputs"]
    with pytest.raises(httpx.ConnectError):
        ask(secured, f"https://127.0.0.1:{url.port}")


def test_only_the_front_end_is_reached_from_outside(handle: launcher.Handle) -> None:
    """All else is on loopback, but for the replicas' own gRPC ports, and these ask for the run's token."""
    grpc = pytest.importorskip("grpc")
    open_to_all = []
    for (ip, port), process in listening(handle).items():
        if ip in EVERYWHERE:
            assert "ServeReplica" in process.command, (ip, port, process)
            open_to_all.append(port)
        elif ip not in LOOPBACK:
            assert ip == card_address()
            is_admin = port == httpx.URL(handle.admin_url).port
            assert process.name == "haproxy" or (is_admin and "control" in process.command)
    assert open_to_all
    for port in open_to_all:
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refusal:
                call(b"", timeout=30)
            assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_no_process_of_a_run_is_nicer_than_its_owner(handle: launcher.Handle) -> None:
    """Replicas and HAProxy compete with whatever else the machine runs on equal terms."""
    nicenesses = set()
    for process in processes_of(handle.folder):
        with suppress(ProcessLookupError):  # it may end meanwhile
            nicenesses.add(os.getpriority(os.PRIO_PROCESS, process.pid))
    assert nicenesses == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_the_admin_interface_is_reached_past_a_dead_proxy(handle: launcher.Handle) -> None:
    """`sluice policy` connects to the gateway itself, whatever the environment says."""
    assert os.environ["http_proxy"]
    assert admin_client.show_policy(handle.admin_url)["number"] == 1


def test_a_front_end_that_was_ended_comes_back_where_it_was(secured: Secured) -> None:
    """After SIGTERM to HAProxy Ray starts it again, on the same address alone."""
    handle = secured.handle
    before = psutil.Process(front_end(handle).pid)
    before.send_signal(signal.SIGTERM)
    before.wait(30)
    with httpx.Client(timeout=5, trust_env=False, verify=secured.trusts) as client:
        end = time.monotonic() + 60
        while True:
            if time.monotonic() > end:
                pytest.fail(last_words(handle.folder / CONTROL_FOLDER))
            try:
                if client.get(f"{handle.url}/v2/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                continue
    assert front_end(handle).pid != before.pid
    assert ask(secured)["outputs"]
    outside = {ip for ip, _ in listening(handle)} - LOOPBACK - EVERYWHERE
    assert outside == {card_address()}


def test_what_is_told_to_listen_is_what_listens(secured: Secured) -> None:
    """The table at start names every listener of the run, each for something known, none open to all."""
    told = secured.handle.listening()
    assert {(one.address, port) for one in told for port in one.ports} >= {
        (ip.removeprefix("::ffff:"), port) for ip, port in listening(secured.handle)
    }
    assert [one for one in told if one.is_exposed or "not known" in one.who] == []
    shown = "\n".join(lines(told))
    for words in (
        r"clients, by TLS +a key\n",
        "admin interface +a key with the scope admin",
        "this run's token",
    ):
        assert re.search(words, shown)
    assert card_address() in lines(told)[1]


def test_nobody_is_answered_without_a_key_or_without_tls(secured: Secured) -> None:
    """Neither at the front door nor at the admin interface, and each key for its own alone."""
    front, admin = secured.handle.url, secured.handle.admin_url
    with httpx.Client(trust_env=False, verify=secured.trusts, timeout=30) as client:
        assert client.post(f"{front}/v1/classify", json={"inputs": "a"}).status_code == 401
        assert client.get(f"{front}/v2/health/ready").status_code == 200
        assert client.get(f"{admin}/policy").status_code == 401
        web = {"authorization": f"Bearer {secured.key}"}
        ops = {"authorization": f"Bearer {os.environ[admin_client.KEY]}"}
        assert client.get(f"{admin}/policy", headers=web).status_code == 403
        assert client.get(f"{admin}/policy", headers=ops).status_code == 200
        assert client.post(f"{front}/v1/classify", json={"inputs": "a"}, headers=ops).status_code == 403
        for url in (front, admin):
            with pytest.raises(httpx.HTTPError):
                client.get(f"{url.replace('https', 'http')}/v2/health/live")


def test_a_key_is_valid_everywhere_as_soon_as_it_is_made_and_no_more_when_it_is_revoked(
    secured: Secured,
) -> None:
    """Through the admin interface: every replica follows before the command returns."""
    made = admin_client.create_key("guest", ["infer"], KeyLimits(), secured.handle.admin_url)
    header = {"authorization": f"Bearer {made['key']}"}
    urls = [f"http://127.0.0.1:{port}/v1/classify" for port in replica_ports(secured.handle)]
    assert len(urls) == 2
    with httpx.Client(trust_env=False, timeout=30) as client:
        assert [client.post(u, json={"inputs": "a"}, headers=header).status_code for u in urls] == [200, 200]
        admin_client.revoke_key("guest", secured.handle.admin_url)
        assert [client.post(u, json={"inputs": "a"}, headers=header).status_code for u in urls] == [401, 401]


def replica_ports(handle: launcher.Handle) -> list[int]:
    """The HTTP ports of the gateway's replicas."""
    return [
        port
        for (ip, port), process in listening(handle).items()
        if 30_000 <= port < 31_000 and ip in LOOPBACK and "gateway" in process.command
    ]


def test_a_rate_holds_over_two_replicas_with_connections_split_nine_to_one(secured: Secured) -> None:
    """Three times the rate for six seconds: what one bucket would have admitted, to 2%."""
    fast, slow = (f"http://127.0.0.1:{port}/v1/classify" for port in replica_ports(secured.handle))
    header = {"authorization": f"Bearer {secured.slow_key}"}
    admitted, sent = 0, 0
    with httpx.Client(trust_env=False, timeout=30, headers=header) as client:
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < 6.0:
            if sent < passed * 3 * RATE:
                url = slow if sent % 10 == 0 else fast
                admitted += client.post(url, json={"inputs": "a"}).status_code == 200
                sent += 1
    if sent < 2 * RATE * 6.0:
        pytest.skip(f"this machine sent {sent} requests in 6 s, too few to reach the limit")
    assert admitted == pytest.approx(RATE * 6.0 + RATE, rel=0.02)


WRONG: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("POST", "/v1/classify", b"{", {}),
    ("POST", "/v1/classify", b'{"inputs": "a", "model": "../../etc/passwd"}', {}),
    ("POST", "/v1/classify", b'{"inputs": "a", "deadline_ms": 0.0001}', {}),
    ("POST", "/v1/classify", b"x" * (2 << 20), {}),
    ("POST", "/v1/classify", b"\x1f\x8b" + b"0" * 100, {"content-encoding": "gzip"}),
    ("POST", "/v1/classify", b"{}", {"content-type": "application/xml"}),
    ("POST", "/v2/models/nobody/infer", b"{}", {}),
    ("POST", "/v2/models/cascade/versions/9/infer", b"{}", {}),
    ("POST", "/v2/models/cascade/infer", b'{"inputs": [{"name": "text", "shape": [1e9]}]}', {}),
    ("POST", "/v2/models/cascade/infer", b"{}", {"inference-header-content-length": "99999999999"}),
    ("DELETE", "/v1/classify", b"", {}),
    ("GET", "/v2/models/%2e%2e%2fsecret", b"", {}),
    ("GET", "/nowhere", b"", {}),
    ("POST", "/v2/repository/models/x/load", b"", {}),
    ("GET", "/-/routes", b"", {}),
]


def test_no_refusal_tells_what_is_behind(secured: Secured) -> None:
    """No path of this machine, no trace, no module, process or library is named in any 4xx or 5xx."""
    internal = re.compile(
        r"Traceback|\.py\b|/(tmp|root|home|work|usr|opt|srv|var)/|serve\.|site-packages|uvicorn|starlette|orjson"
        r"|pydantic|haproxy|\bray\b|0x[0-9a-f]{6,}|line \d+, in",
        re.IGNORECASE,
    )
    header = {"authorization": f"Bearer {secured.key}"}
    with httpx.Client(trust_env=False, verify=secured.trusts, timeout=30) as client:
        for method, path, body, more in WRONG:
            for shown in ({}, header):
                reply = client.request(
                    method, secured.handle.url + path, content=body, headers={**shown, **more}
                )
                assert 400 <= reply.status_code < 600, (method, path)
                assert not internal.search(reply.text), reply.text
                assert "server" not in reply.headers
                assert reply.headers["x-content-type-options"] == "nosniff"
                assert list(reply.json()) == ["error"], reply.text
