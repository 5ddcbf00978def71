"""A gateway on the address of a network card, with a dead proxy in the environment: what listens where."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from serve.control import admin_client
from serve.local import launcher
from serve.local.front_end.addresses import machine_addresses
from serve.local.front_end.install import last_words
from serve.local.ray_environment import CONTROL_FOLDER
from serve.local.run_folder import processes_of
from serve.settings.access import AccessSettings
from tests.serve.conftest import fake_settings

pytestmark = pytest.mark.ray

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
EVERYWHERE = {"0.0.0.0", "::"}


def card_address() -> str:
    """An address that is not 127.0.0.1: a network card's, or another of loopback where there is no card."""
    for address in machine_addresses():
        if not address.is_link_local and str(address) not in LOOPBACK:
            return str(address)
    return "127.0.0.2"


@pytest.fixture(scope="module")
def handle() -> Iterator[launcher.Handle]:
    """The gateway, started by somebody whose shell sends everything to a proxy that is not there."""
    settings = fake_settings().model_copy(
        update={"host": card_address(), "access": AccessSettings(insecure=True)}
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "grpc_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        with launcher.start(settings) as started:
            yield started


def listening(handle: launcher.Handle) -> dict[tuple[str, int], psutil.Process]:
    """Every address and port on which a process of the run listens."""
    processes = {process.pid: process for process in processes_of(handle.folder)}
    return {
        (connection.laddr.ip, connection.laddr.port): processes[connection.pid]
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.pid in processes
    }


def ask(url: str) -> dict[str, Any]:
    """Answer of /v1/classify."""
    reply = httpx.post(f"{url}/v1/classify", json={"inputs": ["a text"]}, timeout=30, trust_env=False)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def front_end(handle: launcher.Handle) -> psutil.Process:
    """The HAProxy that serves now."""
    port = httpx.URL(handle.url).port
    assert port is not None
    return listening(handle)[card_address(), port]


def test_a_network_cards_address_answers_and_no_other(handle: launcher.Handle) -> None:
    """Requests are answered at the address asked for, and loopback refuses them."""
    url = httpx.URL(handle.url)
    assert url.host == card_address()
    assert ask(handle.url)["outputs"]
    with pytest.raises(httpx.ConnectError):
        ask(f"http://127.0.0.1:{url.port}")


def test_only_the_front_end_is_reached_from_outside(handle: launcher.Handle) -> None:
    """All else is on loopback, but for the replicas' own gRPC ports, and these ask for the run's token."""
    grpc = pytest.importorskip("grpc")
    open_to_all = []
    for (ip, port), process in listening(handle).items():
        if ip in EVERYWHERE:
            assert any("ServeReplica" in word for word in process.cmdline()), (ip, port, process.cmdline())
            open_to_all.append(port)
        elif ip not in LOOPBACK:
            assert (ip, process.name()) == (card_address(), "haproxy")
    assert open_to_all
    for port in open_to_all:
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refusal:
                call(b"", timeout=30)
            assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_no_process_of_a_run_is_nicer_than_its_owner(handle: launcher.Handle) -> None:
    """Replicas and HAProxy compete with whatever else the machine runs on equal terms."""
    assert {process.nice() for process in processes_of(handle.folder)} == {psutil.Process().nice()}


def test_the_admin_interface_is_reached_past_a_dead_proxy(handle: launcher.Handle) -> None:
    """`sluice policy` connects to the gateway itself, whatever the environment says."""
    assert os.environ["http_proxy"]
    assert admin_client.show_policy(handle.admin_url)["number"] == 1


def test_a_front_end_that_was_ended_comes_back_where_it_was(handle: launcher.Handle) -> None:
    """After SIGTERM to HAProxy Ray starts it again, on the same address alone."""
    before = front_end(handle)
    before.send_signal(signal.SIGTERM)
    before.wait(30)
    with httpx.Client(timeout=5, trust_env=False) as client:
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
    assert ask(handle.url)["outputs"]
    outside = {ip for ip, _ in listening(handle)} - LOOPBACK - EVERYWHERE
    assert outside == {card_address()}
