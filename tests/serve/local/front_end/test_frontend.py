"""From `--host` to where HAProxy listens: every form that this machine can serve, words for the others."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import EnvironmentProblem, InputError
from contract.urls import parse_base_url
from serve.local.front_end.addresses import check_free, machine_addresses, resolve_front_end
from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.open_files import (
    LEAST_FILES,
    MOST_CONNECTIONS,
    allowed_connections,
    connections_within,
)
from serve.local.front_end.ports import check_loopback, check_port_free, probe
from tests.ports import free_port

V6 = probe(Address("::1"), 0) is None
needs_v6 = pytest.mark.skipif(not V6, reason="this machine has no IPv6")


def front(host: str, port: int = 8000) -> FrontEnd:
    """The front end of a host on this machine."""
    return resolve_front_end(host, port, 100)


def fail_to_resolve(*rest: Any, **more: Any) -> None:
    """Answer as a resolver that does not know the name."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str]], None]:
    """Give a name some addresses, as a resolver would."""

    def give(name: str, addresses: list[str]) -> None:
        def look_up(host: str, *rest: Any, **more: Any) -> list[Any]:
            assert host == name
            kinds = [socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in addresses]
            return [(kind, 1, 6, "", (ip, 0)) for kind, ip in zip(kinds, addresses, strict=True)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return give


@pytest.mark.parametrize(
    ("host", "binds", "url"),
    [
        ("127.0.0.1", ("127.0.0.1:8000",), "http://127.0.0.1:8000"),
        (" 127.8.9.1 ", ("127.8.9.1:8000",), "http://127.8.9.1:8000"),
        ("0.0.0.0", ("0.0.0.0:8000",), "http://127.0.0.1:8000"),
        pytest.param("::1", ("[::1]:8000",), "http://[::1]:8000", marks=needs_v6),
        pytest.param("[::1]", ("[::1]:8000",), "http://[::1]:8000", marks=needs_v6),
        pytest.param("0:0::0:1", ("[::1]:8000",), "http://[::1]:8000", marks=needs_v6),
        pytest.param("::", ("[::]:8000 v4v6",), "http://127.0.0.1:8000", marks=needs_v6),
        ("::ffff:127.0.0.1", ("127.0.0.1:8000",), "http://127.0.0.1:8000"),
    ],
)
def test_an_address_becomes_a_line_and_a_url(host: str, binds: tuple[str, ...], url: str) -> None:
    """IPv6 has brackets in both, `::` is IPv4 too, and the URL reaches it from this machine."""
    found = front(host)
    assert found.binds == binds
    assert found.url == url
    assert str(parse_base_url(found.url)) == url


@needs_v6
def test_all_of_ipv6_is_asked_over_both(names: Callable[..., None]) -> None:
    """`::` promises IPv4 and IPv6, so the gateway is ready only when both answer."""
    assert [str(place) for place in front("::").asked_at] == ["127.0.0.1", "::1"]


def test_all_addresses_without_ipv6_are_those_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where IPv6 is switched off, `::` is served as `0.0.0.0` and says what is missing."""

    def without_v6(address: Address, port: int) -> OSError | None:
        lacking = address.is_v6 and address.ip != "::"
        return OSError(99, "Cannot assign requested address") if lacking else probe(address, port)

    monkeypatch.setattr("serve.local.front_end.addresses.probe", without_v6)
    found = front("::")
    assert found.binds == ("0.0.0.0:8000",)
    assert found.left_out == (Address("::1"),)
    assert found.url == "http://127.0.0.1:8000"


def test_every_address_of_this_machine_can_be_asked_for() -> None:
    """Each address of each network card is taken as it is listed, link-local ones with their card."""
    listed = machine_addresses()
    assert Address("127.0.0.1") in listed
    for address in listed:
        assert front(str(address)).addresses == (address,)


def test_a_link_local_address_is_bound_to_its_card() -> None:
    """HAProxy takes the card apart, URLs take it with its percent sign escaped."""
    address = Address("fe80::7", "eth1")
    found = FrontEnd("fe80::7%eth1", 8000, (address,), (), 100)
    assert found.binds == ("[fe80::7]:8000 interface eth1",)
    assert found.url == "http://[fe80::7%25eth1]:8000"
    assert str(address) == "fe80::7%eth1"


def test_a_name_that_means_a_link_local_address_keeps_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolvers give the card as a number beside the address."""
    index, card = socket.if_nameindex()[0]
    found = [(socket.AF_INET6, 1, 6, "", ("fe80::7:7", 0, 0, index))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr("serve.local.front_end.addresses.probe", lambda *_: None)
    assert front("gateway").addresses == (Address("fe80::7:7", card),)


@needs_v6
def test_a_name_is_served_on_all_that_it_means(names: Callable[..., None]) -> None:
    """Both families of one name, each once, and the URL keeps the name."""
    names("gateway", ["127.0.0.1", "::1", "127.0.0.1"])
    found = front("gateway")
    assert found.binds == ("127.0.0.1:8000", "[::1]:8000")
    assert found.url == "http://gateway:8000"
    assert found.left_out == ()


def test_what_a_name_means_elsewhere_is_left_out_and_told(names: Callable[..., None]) -> None:
    """A name with an address that this machine lacks is served on the others."""
    names("gateway", ["127.0.0.1", "198.51.100.77"])
    found = front("gateway")
    assert found.addresses == (Address("127.0.0.1"),)
    assert found.left_out == (Address("198.51.100.77"),)


def test_a_name_of_another_machine_is_refused(names: Callable[..., None]) -> None:
    """The refusal says what the name means and what there is here."""
    names("gateway", ["198.51.100.77"])
    said = r"--host: gateway means 198\.51\.100\.77, which is no address of this machine\n.*127\.0\.0\.1"
    with pytest.raises(InputError, match=said):
        front("gateway")


def test_a_name_that_does_not_resolve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the flag, the resolver's reason and the machine's addresses."""
    monkeypatch.setattr(socket, "getaddrinfo", fail_to_resolve)
    with pytest.raises(InputError, match=r"--host: gatewya does not resolve: Name or .*\n.*127\.0\.0\.1"):
        front("gatewya")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("198.51.100.77", "198.51.100.77 is no address of this machine"),
        ("2001:db8::77", "2001:db8::77 is no address of this machine"),
        ("224.0.0.1", "for sending to many"),
        ("ff02::1", "for sending to many"),
        ("255.255.255.255", "for sending to many"),
        ("127.0.0.1:8000", "the port goes to --port"),
        ("[::1]:8000", "the port goes to --port"),
        ("http://127.0.0.1", "no address and no name"),
        ("", "no address and no name"),
        ("*", "no address and no name"),
        ("10.0.0.0/8", "no address and no name"),
        ("fd00::7%eth1", "only link-local addresses have a zone"),
        ("fe80::77:77%nosuchcard", "no address of this machine"),
        ("fe80::77:77", "no address of this machine"),
        ("a" * 300, "does not resolve"),
    ],
)
def test_what_no_front_end_can_be_on_is_refused(host: str, said: str) -> None:
    """Each refusal names --host and the reason, and offers what there is, in two lines at most."""
    with pytest.raises(InputError, match=f"--host: .*{said}") as refusal:
        front(host)
    assert refusal.value.hint
    assert refusal.value.message.count("\n") == 1


@given(st.text(max_size=20))
def test_any_text_gives_a_front_end_or_a_refusal(host: str) -> None:
    """Nothing that is typed behind --host ends in a traceback."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", fail_to_resolve)
        try:
            found = resolve_front_end(host, 8000, 100)
        except InputError:
            return
    assert found.addresses


@given(
    st.lists(st.ip_addresses(), min_size=1, max_size=3, unique=True),
    st.integers(1, 65_535),
    st.integers(1, 4096),
)
def test_a_front_end_survives_json(addresses: list[Any], port: int, connections: int) -> None:
    """What the wrapper reads is what the launcher wrote."""
    places = tuple(Address(str(ip).partition("%")[0]) for ip in addresses)
    found = FrontEnd(str(addresses[0]), port, places, places[1:], connections)
    assert FrontEnd.load(found.dump()) == found


@pytest.mark.parametrize(
    ("wanted", "held"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.8.9.1"),
        ("127.8.9.1", "0.0.0.0"),
        pytest.param("::", "127.8.9.1", marks=needs_v6),
        pytest.param("::", "::1", marks=needs_v6),
    ],
)
def test_a_port_that_is_taken_on_one_address_only_is_found(wanted: str, held: str) -> None:
    """Whichever address the holder is on, the refusal names port, address and process before Ray starts."""
    port = free_port()
    with socket.socket(socket.AF_INET6 if ":" in held else socket.AF_INET) as holder:
        holder.bind((held, port))
        holder.listen()
        with pytest.raises(EnvironmentProblem, match=rf"port {port} on {wanted} is taken by .*{os.getpid()}"):
            check_free(front(wanted, port))


def test_a_holder_that_ends_meanwhile_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port whose holder is gone when it is asked for its name was taken all the same."""

    def end(process: psutil.Process) -> str:
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(psutil.Process, "name", end)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"port {port} on 127.0.0.1 is taken\n.*another --port"):
            check_free(front("127.0.0.1", port))


@needs_v6
def test_a_port_that_is_taken_elsewhere_does_not_disturb() -> None:
    """The same port on another address, or in the other family, is free."""
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.8.9.1", port))
        holder.listen()
        check_free(front("127.0.0.1", port))
        check_free(front("::1", port))


def test_a_port_for_the_privileged_is_refused_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 80 without the right to it names the flag and the ports that need none."""

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(EnvironmentProblem, match=r"port 80 needs more rights.*\n.*above 1023"):
        check_port_free(Address("127.0.0.1"), 80, "--port")


def test_a_machine_that_does_not_reach_itself_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a network namespace whose loopback is down nothing of a gateway could talk to the rest of it."""

    def refuse(*_: Any) -> None:
        raise OSError(101, "Network is unreachable")

    check_loopback()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(
        EnvironmentProblem, match=r"127\.0\.0\.1: Network is unreachable\n.*ip link set lo up"
    ):
        check_loopback()


@pytest.mark.parametrize(
    ("files", "connections"),
    [(1024, 369), (4096, 1598), (20_000, MOST_CONNECTIONS), (10**9, MOST_CONNECTIONS)],
)
def test_connections_fit_the_open_files(files: int, connections: int) -> None:
    """Two files and half a pipe for each connection, and HAProxy's own beside them, stay within the limit."""
    assert connections_within(files) == connections


@pytest.mark.parametrize("hard", [64, LEAST_FILES - 1])
def test_too_few_open_files_are_refused(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    """Below what a gateway needs, the start is refused with the limit's name and how to raise it."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (hard, hard))
    with pytest.raises(
        EnvironmentProblem, match=rf"open files is {hard}, .*{LEAST_FILES} or more\n.*ulimit -Hn"
    ):
        allowed_connections()
