"""What Ray runs in place of HAProxy, run as Ray runs it: it becomes HAProxy, on the addresses asked for."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.install import find_haproxy, last_words, wrapper_environment
from serve.local.front_end.open_files import LEAST_FILES, connections_within
from serve.local.front_end.ports import probe
from serve.local.front_end.wrapper import HAPROXY
from sluicegate.own_packages import HOME
from tests.ports import free_port
from tests.serve.local.front_end.rays import rays_configuration

needs_v6 = pytest.mark.skipif(probe(Address("::1"), 0) is not None, reason="this machine has no IPv6")


def command(folder: Path, front: FrontEnd) -> tuple[list[str], dict[str, str]]:
    """The command and the environment with which Ray starts HAProxy."""
    environment = wrapper_environment(front)
    rays_configuration(folder, port=front.port)
    return [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(folder / "haproxy.cfg"), "-dR"], {
        **os.environ,
        **environment,
    }


def accepts(place: Address, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket(socket.AF_INET6 if place.is_v6 else socket.AF_INET) as client:
        return client.connect_ex((place.ip, port)) == 0


@contextmanager
def running(
    folder: Path, front: FrontEnd, prepare: Callable[[], None] | None = None
) -> Iterator[psutil.Process]:
    """HAProxy behind the wrapper, once it accepts connections."""
    words, environment = command(folder, front)
    with (
        (folder / "1.stderr.log").open("wb") as log,
        subprocess.Popen(words, env=environment, stderr=log, stdout=log, preexec_fn=prepare) as process,
    ):
        try:
            for place in front.asked_at:
                while not accepts(place, front.port):
                    assert process.poll() is None, last_words(folder)
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def status(place: Address, port: int, timeout: float = 20) -> int:
    """What HAProxy itself answers on its health route."""
    connection = HTTPConnection(place.ip, port, timeout=timeout)
    try:
        connection.request("GET", "/-/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "hosts", [["127.8.9.1"], pytest.param(["127.0.0.1", "::1"], marks=needs_v6)], ids=str
)
def test_it_becomes_haproxy_on_these_addresses_alone(tmp_path: Path, hosts: list[str]) -> None:
    """The same process, with the arguments that Ray knows it by, listens where asked and nowhere else."""
    front = FrontEnd("given", free_port(), tuple(Address(host) for host in hosts), (), 100)
    with running(tmp_path, front) as process:
        assert process.exe() == str(Path(find_haproxy()).resolve())
        assert process.cmdline()[1:] == ["-db", "-f", str(tmp_path / "haproxy.cfg"), "-dR"]
        listening = {c.laddr[:2] for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert listening == {(host, front.port) for host in hosts}


@needs_v6
def test_all_of_ipv6_is_ipv4_too(tmp_path: Path) -> None:
    """On `::` both families are answered, whatever the system's default for such sockets."""
    front = FrontEnd("::", free_port(), (Address("::"),), (), 100)
    with running(tmp_path, front):
        answers = {str(place): status(place, front.port) for place in front.asked_at}
    assert set(answers) == {"127.0.0.1", "::1"}
    assert len(set(answers.values())) == 1


def test_connections_beyond_the_most_wait_for_a_place(tmp_path: Path) -> None:
    """With idle connections on every place a request waits; with one of them closed it is answered."""
    front = FrontEnd("127.0.0.1", free_port(), (Address("127.0.0.1"),), (), 5)
    [place] = front.asked_at
    with running(tmp_path, front), ExitStack() as idle:
        while True:  # those that looked whether it runs may still count
            held = socket.create_connection((place.ip, front.port))
            idle.callback(held.close)
            try:
                status(place, front.port, timeout=0.5)
            except TimeoutError:
                break
        idle.close()
        assert status(place, front.port)


def test_without_a_replica_clients_are_asked_to_try_again(tmp_path: Path) -> None:
    """A replica that is not there is a 503 in our form with Retry-After, which clients know to repeat."""
    front = FrontEnd("127.0.0.1", free_port(), (Address("127.0.0.1"),), (), 100)
    with running(tmp_path, front):
        connection = HTTPConnection("127.0.0.1", front.port, timeout=20)
        connection.request("POST", "/v1/classify", body="{}")
        reply = connection.getresponse()
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert json.loads(reply.read()) == {"error": "not serving: try again"}
        connection.close()


def test_it_starts_with_the_fewest_open_files(tmp_path: Path) -> None:
    """As many connections as are reckoned to fit are what HAProxy itself finds to fit."""
    front = FrontEnd("127.0.0.1", free_port(), (Address("127.0.0.1"),), (), connections_within(LEAST_FILES))
    limit = (LEAST_FILES, LEAST_FILES)
    with running(tmp_path, front, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)) as process:
        assert process.rlimit(psutil.RLIMIT_NOFILE) == limit
        assert status(Address("127.0.0.1"), front.port)


def test_another_configuration_ends_it_with_words(tmp_path: Path) -> None:
    """Where Ray writes another form, HAProxy never starts, and the reason is where its log is looked for."""
    front = FrontEnd("127.0.0.1", free_port(), (Address("127.0.0.1"),), (), 100)
    words, environment = command(tmp_path, front)
    config = tmp_path / "haproxy.cfg"
    config.write_text(config.read_text().replace("listen stats", "listen pages"))
    node = tmp_path / "node"
    node.mkdir()
    with (node / "admin.sock.1.1.stderr.log").open("wb") as log:
        code = subprocess.run(words, env=environment, stderr=log, check=False).returncode
    assert code == 1
    assert "not as Ray 2.60 writes it: there is no section 'listen stats'" in last_words(tmp_path)


def test_modules_beside_the_package_hide_no_standard_ones(tmp_path: Path) -> None:
    """A backport in site-packages, where the package is too, does not come before the standard library."""
    site, folder = tmp_path / "site", tmp_path / "run"
    folder.mkdir()
    for part in ("contract", "serve/local/front_end"):
        shutil.copytree(HOME / part, site / part)
    (site / "serve/__init__.py").touch()
    for name in ("dataclasses", "ipaddress", "json"):
        (site / f"{name}.py").write_text("raise SystemExit('hidden')")
    front = FrontEnd("127.0.0.1", free_port(), (Address("127.0.0.1"),), (), 100)
    words, environment = command(folder, front)
    done = subprocess.run(
        [str(site / "serve/local/front_end/haproxy.sh"), *words[1:]],
        env=environment | {HAPROXY: "/bin/true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_haproxy_says_in_passing_is_no_last_word(tmp_path: Path) -> None:
    """A start that failed for another reason is not blamed on an HAProxy that runs."""
    front = FrontEnd("127.0.0.1", free_port(), (Address("127.0.0.1"),), (), 100)
    with running(tmp_path, front):
        assert "WARNING" in (tmp_path / "1.stderr.log").read_text()
        assert last_words(tmp_path) == ""


def test_a_log_that_is_gone_says_nothing(tmp_path: Path) -> None:
    """A log that Ray removes while it is looked for does not hide what went wrong before."""
    (tmp_path / "1.stderr.log").symlink_to(tmp_path / "removed")
    assert last_words(tmp_path) == ""


def test_a_port_that_was_taken_meanwhile_is_haproxys_last_word(tmp_path: Path) -> None:
    """Between the check at start and HAProxy somebody may take the port, and HAProxy's alert says so."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        front = FrontEnd("127.0.0.1", holder.getsockname()[1], (Address("127.0.0.1"),), (), 100)
        words, environment = command(tmp_path, front)
        with (tmp_path / "1.stderr.log").open("wb") as log:
            subprocess.run(words, env=environment, stderr=log, check=False, timeout=60)
    assert "annot bind socket" in last_words(tmp_path)


def test_what_haproxy_answers_itself_carries_a_request_id(tmp_path: Path) -> None:
    """The client's where it is fit, else a new one: whoever reports a 503 can be found in a log."""
    front = FrontEnd("127.0.0.1", free_port(), (Address("127.0.0.1"),), (), 100)
    given = {"own": "order-7", "long": "x" * 129, "none": None}
    found: dict[str, list[str]] = {}
    with running(tmp_path, front):
        for name, value in given.items():
            connection = HTTPConnection("127.0.0.1", front.port, timeout=20)
            connection.request(
                "POST", "/v1/classify", body="{}", headers={"x-request-id": value} if value else {}
            )
            found[name] = connection.getresponse().headers.get_all("x-request-id") or []
            connection.close()
    assert found["own"] == ["order-7"]
    assert len({*found["long"], *found["none"]}) == 2
    assert all(len(value) == 36 for value in (*found["long"], *found["none"]))
