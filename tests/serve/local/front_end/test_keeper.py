"""An HAProxy that dies is stood in for: with real HAProxys, the wrapper, and Ray's own configuration."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest

from serve.local.front_end import keeper as keeping
from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.install import find_haproxy, wrapper_environment
from serve.local.front_end.keeper import Keeper
from serve.local.front_end.listeners import Listeners
from serve.local.front_end.wrapper import replacing
from tests.ports import free_port
from tests.serve.local.front_end.rays import rays_configuration

KNOWS = {"success", "service unavailable"}
"""What HAProxy says of its health where it knows replicas, which answer or do not."""


@dataclass
class House:
    """A keeper, and HAProxys as Ray starts them."""

    folder: Path
    front: FrontEnd
    keeper: Keeper
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *, servers: int = 2, replacing: subprocess.Popen[bytes] | None = None) -> int:
        """Start HAProxy through the wrapper and return its process id."""
        rays_configuration(self.folder, port=self.front.port, servers=servers)
        environment = wrapper_environment(self.front, self.keeper.address)
        given = ["-db", "-f", str(self.folder / "haproxy.cfg"), "-dR"]
        if replacing is not None:
            given += ["-sf", str(replacing.pid), "-x", str(self.folder / "admin.sock")]
        process = subprocess.Popen(
            [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], *given],
            env={**os.environ, **environment},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self.started.append(process)
        return process.pid

    def knows(self) -> bool:
        """Whether something answers that knows replicas."""
        connection = HTTPConnection("127.0.0.1", self.front.port, timeout=5)
        try:
            connection.request("GET", "/-/healthz")
            return connection.getresponse().read().decode().lower() in KNOWS
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def end(self) -> None:
        """End every HAProxy that was started as Ray does."""
        for process in self.started:
            process.kill()
            process.wait()

    def living(self) -> set[int]:
        """The HAProxys that run."""
        own = {p.pid for p in self.started if p.poll() is None}
        return own | self.keeper.own_pids()


def until(true: Callable[[], bool], within_s: float = 15.0) -> float:
    """Wait for something and return how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s
        time.sleep(0)
    return time.monotonic() - began


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A keeper on a free port."""
    front = FrontEnd("127.0.0.1", free_port(), (Address("127.0.0.1"),), (), 100)
    keeper = Keeper(tmp_path, Listeners(front), find_haproxy(), dict(os.environ))
    with ExitStack() as ended:
        made = House(tmp_path, front, keeper)
        ended.callback(made.end)
        ended.callback(keeper.close)
        yield made


def test_nothing_listens_before_the_first_haproxy(house: House) -> None:
    """Until there is somebody to answer, clients are refused instead of kept waiting."""
    assert not house.knows()
    house.start()
    until(house.knows)


def test_a_killed_haproxy_is_stood_in_for_at_once(house: House) -> None:
    """No connection is refused meanwhile, and the one that stands in knows the same replicas."""
    killed = house.start()
    until(house.knows)
    os.kill(killed, signal.SIGKILL)
    assert house.knows()
    [standing_in] = house.keeper.own_pids()
    os.kill(standing_in, signal.SIGKILL)
    assert house.knows()
    until(lambda: house.keeper.stood_in == 2)


def test_rays_next_haproxy_takes_over_once_it_knows_replicas(house: House) -> None:
    """One that knows none yet waits; the reload that brings them ends the one that stood in, and serves."""
    killed = house.start()
    until(house.knows)
    os.kill(killed, signal.SIGKILL)
    until(lambda: house.keeper.stood_in == 1)
    ignorant = house.start(servers=0)
    until(lambda: (house.folder / "idle.sock").exists())
    assert house.knows()
    knowing = house.start(replacing=house.started[-1])
    until(lambda: house.living() == {knowing})
    assert ignorant not in house.living()
    assert house.knows()


def test_a_reload_loses_nothing_and_leaves_one(house: House) -> None:
    """Each HAProxy that Ray starts in place of another gets the same sockets, and the old ones end."""
    house.start()
    until(house.knows)
    for _ in range(3):
        newest = house.start(replacing=house.started[-1])
        while house.living() != {newest}:
            assert house.knows()
    assert house.keeper.stood_in == 0


def test_an_haproxy_of_a_dead_manager_is_ended_by_the_next(house: House) -> None:
    """Ray's new manager knows nothing of its predecessor's HAProxy; the keeper does."""
    house.start()
    until(house.knows)
    newest = house.start()
    until(lambda: house.living() == {newest})
    assert house.knows()


def test_one_that_no_longer_answers_is_killed_and_replaced(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen HAProxy holds connections without answering; it goes, and they are answered."""
    monkeypatch.setattr(keeping, "PATIENCE_S", 0.6)
    frozen = house.start()
    until(house.knows)
    psutil.Process(frozen).suspend()
    until(lambda: house.keeper.stood_in == 1)
    assert house.knows()
    assert frozen not in house.living()


def test_a_start_that_fails_changes_nothing(house: House) -> None:
    """Where Ray's next HAProxy dies of its configuration, the good one serves on, alone and looked after."""
    good = house.start()
    until(house.knows)
    until(lambda: house.keeper._proven is not None)
    environment = wrapper_environment(house.front, house.keeper.address)
    rays_configuration(house.folder, port=house.front.port)
    config = house.folder / "haproxy.cfg"
    config.write_text(config.read_text().replace("balance ", "balanced "))
    failed = subprocess.run(
        [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config), "-dR"],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert failed.returncode == 1
    assert house.knows()
    until(lambda: len(house.keeper._members) == 1)
    [member] = house.keeper._members
    over = time.monotonic() + 2 * keeping.LOOK_EVERY_S
    until(lambda: member.answered > over)
    assert member.retired is None
    assert house.living() == {good}
    assert house.keeper.stood_in == 0


def test_where_the_stand_in_cannot_be_started_it_is_tried_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk without room, say, is no end: the first try that goes answers those who wait."""
    killed = house.start()
    until(house.knows)
    in_the_way = house.keeper.address.with_name("haproxy.cfg")
    in_the_way.mkdir()
    os.kill(killed, signal.SIGKILL)
    until(lambda: caplog.text.count("no HAProxy can stand in") >= 2)
    assert house.keeper.stood_in == 0
    in_the_way.rmdir()
    until(lambda: house.keeper.stood_in == 1)
    until(house.knows)


def test_at_rest_nothing_is_started(house: House) -> None:
    """Once the gateway is told to stop, an HAProxy that ends has ended, and the port is free at the end."""
    last = house.start()
    until(house.knows)
    house.keeper.rest()
    os.kill(last, signal.SIGKILL)
    house.started[-1].wait()
    house.keeper.close()
    assert not house.knows()
    assert house.keeper.stood_in == 0
    Listeners(house.front).close()


def test_without_its_keeper_haproxy_binds_for_itself(house: House) -> None:
    """An HAProxy that starts while the launcher is ending finds a way that needs nobody."""
    house.keeper.close()
    house.start()
    until(house.knows)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["-db"], ["-db", "-sf", "8", "9"]),
        (["-db", "-sf", "7", "-x", "s"], ["-db", "-sf", "8", "9", "7", "-x", "s"]),
        (["-db", "-sf", "8", "9", "-x", "s"], ["-db", "-sf", "8", "9", "-x", "s"]),
    ],
)
def test_those_to_end_are_added_to_rays(given: list[str], wanted: list[str]) -> None:
    """Process ids go behind `-sf`, each once, and every other argument stays."""
    assert replacing(given, ["8", "9"]) == wanted
