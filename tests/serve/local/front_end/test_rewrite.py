"""HAProxy's configuration as the installed Ray writes it, rewritten: who listens, and how much fits."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from contract.errors import EnvironmentProblem
from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.install import find_haproxy
from serve.local.front_end.rewrite import UNAVAILABLE, stand_in
from serve.local.front_end.rewrite import rewrite as rewrite_with
from tests.serve.local.front_end.rays import PORT, rays_configuration


def rewrite(config: str, front: FrontEnd, unavailable: str = "/folder/503.http") -> str:
    """The configuration for a front end."""
    return rewrite_with(config, front, unavailable)


def front_end(*addresses: Address, connections: int = 1234) -> FrontEnd:
    """A front end on some addresses."""
    return FrontEnd("given", PORT, addresses, (), connections)


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    """What the installed Ray writes, replicas and front end on loopback."""
    return rays_configuration(tmp_path)


def words(config: str, first: str) -> list[str]:
    """The rest of every line that begins with a word."""
    return [line.strip().partition(" ")[2] for line in config.splitlines() if line.split()[:1] == [first]]


def test_only_the_front_end_listens(configuration: str) -> None:
    """Ray's own front end and its two pages of statistics are gone; the addresses asked for are there."""
    assert len(words(configuration, "bind")) == 3
    written = rewrite(configuration, front_end(Address("192.0.2.7"), Address("fd00::7")))
    assert words(written, "bind") == [f"192.0.2.7:{PORT}", f"[fd00::7]:{PORT}"]


def test_the_connections_are_those_of_the_front_end(configuration: str) -> None:
    """HAProxy holds as many clients as the limit of open files allows, instead of what Ray asks for."""
    assert words(rewrite(configuration, front_end(Address("::1"), connections=369)), "maxconn") == ["369"]


def test_what_is_not_there_now_is_a_503(configuration: str) -> None:
    """Neither Ray's 404 without a route nor its 500 without a replica is left."""
    written = rewrite(configuration, front_end(Address("::1")))
    assert words(written, "errorfile") == [f"{code} /folder/503.http" for code in (502, 503, 504)]
    assert "return status 503 default-errorfiles" in words(written, "http-request")
    assert "status 404" not in written.partition("backend default_backend")[2]
    head, _, body = UNAVAILABLE.partition("\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head


def test_everything_else_stays(configuration: str) -> None:
    """Back ends, checks and routes are Ray's, line by line."""
    written = rewrite(configuration, front_end(Address("::1"))).splitlines()
    ours = (
        "bind ", "maxconn ", "errorfile ", "http-request return status 404 ", "log ", "option httplog",
        "option splice-re",
    )  # fmt: skip
    kept = [line for line in configuration.splitlines() if not line.strip().startswith(ours)]
    assert [line.strip() for line in kept if line not in written] == [
        "frontend prometheus",
        "http-request use-service prometheus-exporter if { path /metrics }",
        "no log",
        "listen stats",
        "stats enable",
        "stats uri /stats",
        "stats refresh 1s",
    ]
    assert any(line.startswith("    server replica-1 127.0.0.1:2 check") for line in written)


def test_no_request_is_written_to_a_log_that_nobody_reads(configuration: str) -> None:
    """Ray's lines for a log by UDP are gone; what is logged of requests is the replicas'."""
    assert words(configuration, "log")
    written = rewrite(configuration, front_end(Address("::1")))
    assert not words(written, "log")
    assert "httplog" not in words(written, "option")
    assert not [option for option in words(written, "option") if option.startswith("splice")]


@pytest.mark.parametrize(
    "address",
    [Address("127.0.0.1"), Address("0.0.0.0"), Address("::"), Address("::1"), Address("fe80::1", "lo")],
    ids=str,
)
def test_haproxy_reads_what_is_written(tmp_path: Path, configuration: str, address: Address) -> None:
    """The HAProxy that comes with Ray finds the rewritten configuration valid, whatever the address."""
    checked = tmp_path / "rewritten.cfg"
    unavailable = tmp_path / "503.http"
    unavailable.write_text(UNAVAILABLE, newline="")
    checked.write_text(rewrite(configuration, front_end(address), str(unavailable)))
    said = subprocess.run(
        [find_haproxy(), "-c", "-f", str(checked)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("frontend prometheus", "frontend numbers", "no section 'frontend prometheus'"),
        ("listen stats", "listen pages", "no section 'listen stats'"),
        (f"    bind 127.0.0.1:{PORT}", f"    bind *:{PORT}", r"the front end's line is 'bind \*"),
        (f"    bind 127.0.0.1:{PORT}", f" bind 127.0.0.1:{PORT}\n bind :1", "2 lines that begin with 'bind'"),
        ("    maxconn", "    maxconns", "0 lines that begin with 'maxconn'"),
        ("\nbackend default", "\nbackend x\n bind :1\nbackend default", "'backend x' listens too"),
        ("\nbackend default_backend", "\ndefaults", "the section 'defaults' comes twice"),
        ("    errorfile 504", "    errorfile 505", "0 lines that begin with 'errorfile 504'"),
        ("return status 404", "deny status 404", "0 lines that begin with 'http-request return status 404'"),
        ("global\n", "    maxconn 1\nglobal\n", "it begins with 'maxconn 1'"),
        ("    log global", "    timeout http-request 5s", "a timeout for requests of its own"),
    ],
)  # fmt: skip
def test_another_form_is_refused(configuration: str, old: str, new: str, said: str) -> None:
    """What a later Ray may write otherwise stops the start, and the message says what is otherwise."""
    changed = configuration.replace(old, new, 1)
    assert changed != configuration
    with pytest.raises(EnvironmentProblem, match=f"not as Ray 2.60 writes it: .*{said}"):
        rewrite(changed, front_end(Address("::1")))


def test_a_front_end_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    """A front end for gRPC beside ours would listen on loopback only as long as nobody looks."""
    with pytest.raises(EnvironmentProblem, match="'frontend grpc_frontend' listens too"):
        rewrite(rays_configuration(tmp_path, grpc=True), front_end(Address("::1")))


def test_grpc_is_heard_where_it_is_asked_for(tmp_path: Path) -> None:
    """On the front end's addresses and its own port; without a replica the client is asked to try again."""
    front = replace(front_end(Address("192.0.2.7")), grpc_port=9000)
    written = rewrite(rays_configuration(tmp_path, grpc=True), front)
    assert words(written, "bind") == [f"192.0.2.7:{PORT}", "192.0.2.7:9000 proto h2"]
    assert "grpc-status 5" not in written
    assert any("grpc-status 14" in line for line in words(written, "http-request"))
    front = replace(front, addresses=(Address("127.0.0.1"),))
    checked = tmp_path / "rewritten.cfg"
    checked.write_text(rewrite(rays_configuration(tmp_path, grpc=True), front, str(tmp_path / "503.http")))
    (tmp_path / "503.http").write_text(UNAVAILABLE, newline="")
    said = subprocess.run(
        [find_haproxy(), "-c", "-f", str(checked)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert "grpc_frontend" not in stand_in(checked.read_text(), "control.sock", "503.http")


def test_grpc_that_ray_does_not_offer_is_refused(configuration: str) -> None:
    """Asked for, and not in Ray's configuration: that is told rather than left out."""
    with pytest.raises(EnvironmentProblem, match="no section 'frontend grpc_frontend'"):
        rewrite(configuration, replace(front_end(Address("::1")), grpc_port=9000))


def test_a_rewritten_configuration_is_not_rewritten_again(configuration: str) -> None:
    """Ray writes the file anew before each start, so a second rewriting means that something is amiss."""
    once = rewrite(configuration, front_end(Address("::1")))
    with pytest.raises(EnvironmentProblem, match="no section"):
        rewrite(once, front_end(Address("::1")))
