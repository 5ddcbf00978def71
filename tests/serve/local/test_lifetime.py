"""How a gateway starts, ends and is cleaned up after: whatever is interrupted or killed, no process stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from contract.errors import EnvironmentProblem
from serve.local import launcher, run_folder
from serve.local.front_end.ports import DRAWN_PORTS, free_ports
from serve.local.run_folder import (
    MARK,
    clean_dead_runs,
    make_run_folder,
    processes_of,
    remove_run,
    run_root,
)
from serve.settings.gateway import Settings
from serve.settings.stages import StageSettings
from tests.serve.conftest import fake_settings

SERVE = (
    "import sys; from serve.local import launcher; from serve.settings.gateway import Settings; "
    "launcher.run_until_stopped(Settings.model_validate_json(sys.argv[1]), lambda m: print(m, flush=True))"
)

STUB_HOST = """
import json, os, signal, sys
from pathlib import Path
where = Path(os.environ["STUB_FOLDER"])
def drain(*_):
    while not (where / "go").exists():
        pass
    (where / "drained").touch()
    os._exit(0)
signal.signal(signal.SIGTERM, drain)
words = json.dumps({"event": os.environ["STUB_EVENT"], "message": "loading"})
pipe = os.fdopen(int(sys.argv[1]), "w")
print(words, file=pipe, flush=True)
while True:
    signal.pause()
"""

FLEETING_HOST = """
import json, os, sys
from pathlib import Path
where = Path(os.environ["STUB_FOLDER"])
(where / str(os.getpid())).touch()
said = {"event": "failed", "message": "no room"} if (where / "fail").exists() else {"event": "ready"}
print(json.dumps(said), file=os.fdopen(int(sys.argv[1]), "w"), flush=True)
sys.exit(3)
"""

STUB = """
import os, signal, sys
from pathlib import Path
from serve.local import launcher, run_folder
from serve.settings.gateway import Settings
settings, launcher._HOST, os.environ["STUB_FOLDER"], os.environ["STUB_EVENT"] = sys.argv[1:]
if os.environ["STUB_EVENT"] == "progress":
    end = run_folder.end_processes
    run_folder.end_processes = lambda folder: os.kill(os.getpid(), signal.SIGTERM) or end(folder)
launcher.run_until_stopped(Settings.model_validate_json(settings), lambda m: print(m, flush=True))
"""

REAP = """
import os, subprocess
from serve.local.launcher import _reap_until_ended
orphan = subprocess.Popen(["true"])
asked = subprocess.Popen(["sh", "-c", f"while [ -d /proc/{orphan.pid} ]; do :; done; exit 7"])
_reap_until_ended(asked.pid)
try:
    os.waitpid(orphan.pid, 0)
except ChildProcessError:
    print("no child")
print(asked.wait())
"""


@contextmanager
def serving(
    settings: Settings, script: str = SERVE, *more: str
) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """A foreground gateway in a process of its own, with the lines that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, settings.model_dump_json(), *more],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, iter(process.stdout)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def small_settings() -> Settings:
    """Settings of one replica with every variant inside: less to start, where stages do not matter."""
    inside = StageSettings(placement="inline")
    return fake_settings().model_copy(update={"replicas": 1, "stage": inside})


def until(lines: Iterator[str], word: str) -> None:
    """Read lines up to one that holds a word."""
    for line in lines:
        if word in line:
            return
    raise AssertionError(f"it ended without saying {word!r}")


def run_folders() -> dict[int, Path]:
    """Run folders that live processes carry, by process id."""
    found = {}
    for process in psutil.process_iter():
        try:
            folder = process.environ().get(MARK)
        except (psutil.Error, OSError):
            continue
        if folder:
            found[process.pid] = Path(folder)
    return found


def folder_of(process: subprocess.Popen[str]) -> Path:
    """Run folder of a foreground gateway, from its host process."""
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):  # others of its children come and go
            if folder := child.environ().get(MARK):
                return Path(folder)
    raise AssertionError("it has no host process")


def gone(folder: Path, within_s: float = 20) -> bool:
    """Whether no process of a run is left, now or soon."""
    end = time.monotonic() + within_s
    while left := [pid for pid, carried in run_folders().items() if carried == folder]:
        if time.monotonic() > end:
            return False
        for pid in left:
            with contextlib.suppress(psutil.Error):
                psutil.Process(pid).wait(max(0.0, end - time.monotonic()))
    return True


@pytest.mark.ray
def test_a_terminal_that_closes_while_variants_load_leaves_nothing() -> None:
    """SIGHUP late in the start, with Ray up and nobody to read, ends with 0, no process and no folder."""
    with serving(small_settings()) as (process, lines):
        until(lines, "loading variants")
        folder = folder_of(process)
        assert process.stdout is not None
        process.stdout.close()
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 0
    assert gone(folder, 0)
    assert not folder.exists()


@pytest.mark.ray
def test_a_killed_launcher_takes_the_run_with_it() -> None:
    """With the foreground process killed, the host process notices and ends the run."""
    with serving(fake_settings()) as (process, lines):
        until(lines, "ready at")
        folder = folder_of(process)
        process.kill()
        process.wait()
    assert gone(folder)


@pytest.mark.ray
def test_a_gateway_without_its_raylet_starts_again() -> None:
    """Without a raylet Ray ends; the gateway comes back by itself, on its port, and ends as ever."""
    settings = small_settings()
    with serving(settings) as (process, lines):
        until(lines, "ready at")
        folder = folder_of(process)
        [raylet] = [one for one in processes_of(folder) if one.name == "raylet"]
        os.kill(raylet.pid, signal.SIGKILL)
        until(lines, "ready again at")
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.port}/v2/health/ready") as reply:
            assert reply.status == 200
        process.terminate()
        assert process.wait(60) == 0
    assert gone(folder, 0)


def test_a_host_that_ends_again_and_again_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times it is started again; after the fourth end the start is given up and nothing is left."""
    monkeypatch.setattr(launcher, "_HOST", FLEETING_HOST)
    monkeypatch.setenv("STUB_FOLDER", str(tmp_path))
    said: list[str] = []
    handle = launcher.start(fake_settings(), said.append)
    with pytest.raises(EnvironmentProblem, match=r"by itself \(code 3\), 4 times within 600 s"):
        handle.wait(said.append)
    assert len([line for line in said if "starting it again" in line]) == 3
    assert len(list(tmp_path.iterdir())) == 4
    assert gone(handle.folder, 0)


def test_a_host_that_does_not_come_back_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second start fails, its reason is told, and nothing is left."""
    monkeypatch.setattr(launcher, "_HOST", FLEETING_HOST)
    monkeypatch.setenv("STUB_FOLDER", str(tmp_path))
    handle = launcher.start(fake_settings())
    (tmp_path / "fail").touch()
    with pytest.raises(EnvironmentProblem, match="did not start: no room"):
        handle.wait()
    assert gone(handle.folder, 0)


@pytest.mark.ray
def test_the_next_start_cleans_up_after_two_killed_processes() -> None:
    """When launcher and host are killed at once, HAProxy may stay; the next start says so and ends it."""
    with serving(fake_settings()) as (process, lines):
        until(lines, "ready at")
        folder = folder_of(process)
        host = psutil.Process(process.pid).children()[0]
        os.kill(process.pid, signal.SIGKILL)
        host.kill()
        process.wait()
        host.wait(10)
    said: list[str] = []
    clean_dead_runs(said.append)
    assert gone(folder, 0)
    assert not folder.exists()


def test_a_terminal_that_closes_twice_drains_all_the_same(tmp_path: Path) -> None:
    """The shell sends SIGHUP and the kernel again: neither the second nor a third skips the draining."""
    with serving(fake_settings(), STUB, STUB_HOST, str(tmp_path), "ready") as (process, lines):
        until(lines, "ready at")
        folder = folder_of(process)
        process.send_signal(signal.SIGHUP)
        until(lines, "stopping")
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
        (tmp_path / "go").touch()
        assert process.wait(30) == 0
    assert (tmp_path / "drained").exists()
    assert not folder.exists()


def test_a_second_signal_skips_the_draining(tmp_path: Path) -> None:
    """SIGTERM after SIGINT ends the gateway at once, with nothing left."""
    with serving(fake_settings(), STUB, STUB_HOST, str(tmp_path), "ready") as (process, lines):
        until(lines, "ready at")
        folder = folder_of(process)
        process.send_signal(signal.SIGINT)
        until(lines, "stopping")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not (tmp_path / "drained").exists()
    assert gone(folder, 0)
    assert not folder.exists()


def test_a_second_signal_while_starting_leaves_nothing(tmp_path: Path) -> None:
    """A SIGTERM that comes while what had been started is being ended does not stop that."""
    with serving(fake_settings(), STUB, STUB_HOST, str(tmp_path), "progress") as (process, lines):
        until(lines, "loading")
        folder = folder_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert gone(folder, 0)
    assert not folder.exists()


def test_a_signal_amid_the_removal_is_handled_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C while a run is removed counts once nothing of the run is left."""
    folder, lock = make_run_folder(run_root())

    def end_processes(_: Path) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(run_folder, "end_processes", end_processes)
    with pytest.raises(KeyboardInterrupt):
        remove_run(folder)
    lock.close()
    assert not folder.exists()


def test_orphans_are_reaped_and_the_child_waited_for_is_not() -> None:
    """Process 1 takes leave of whatever ends, up to the child whose exit code somebody wants."""
    done = subprocess.run([sys.executable, "-c", REAP], capture_output=True, text=True, check=False)
    assert done.stdout == "no child\n7\n", done.stderr


def test_a_run_lives_as_long_as_its_lock_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever clocks and process ids say, only a run whose lock nobody holds is cleaned up."""
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 1.0)
    folder, lock = make_run_folder(run_root())
    said: list[str] = []
    with subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: str(folder)}) as marked:
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: 2.0)
        clean_dead_runs(said.append)
        assert folder.is_dir()
        assert marked.poll() is None
        lock.close()
        clean_dead_runs(said.append)
        marked.wait(10)
    assert not folder.exists()
    assert any(str(folder) in line for line in said)


def test_a_process_whose_mark_was_overwritten_is_ended_and_a_visitor_is_not() -> None:
    """Ray's titles can hide the mark: its processes are known by title and folder, a shell there is not."""
    folder, lock = make_run_folder(run_root())
    bare, said = {"PATH": os.environ["PATH"]}, list[str]()
    with (
        subprocess.Popen(["ray::Agent", "60"], executable="/bin/sleep", cwd=folder, env=bare),
        subprocess.Popen(["sleep", "60"], cwd=folder, env=bare) as visitor,
    ):
        lock.close()
        clean_dead_runs(said.append)
        assert visitor.poll() is None
        visitor.kill()
    assert any(line.startswith("ended 1 processes") and str(folder) in line for line in said)
    assert not folder.exists()


def test_the_folder_of_a_run_is_locked_itself() -> None:
    """What cleans /tmp by age, such as systemd-tmpfiles, passes over folders that it cannot lock."""
    folder, lock = make_run_folder(run_root())
    cleaner = os.open(folder, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.close()
        fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(cleaner)
    remove_run(folder)


def test_a_process_that_inherits_the_lock_keeps_the_run_alive() -> None:
    """With the launcher's own handle closed, the host's is enough."""
    folder, lock = make_run_folder(run_root())
    with subprocess.Popen(["sleep", "60"], pass_fds=(lock.fileno(),)) as heir:
        lock.close()
        clean_dead_runs(lambda _: None)
        assert folder.is_dir()
        heir.kill()
        heir.wait()
        clean_dead_runs(lambda _: None)
    assert not folder.exists()


def test_ports_are_drawn_where_no_connection_of_others_can_take_them() -> None:
    """The ports for HAProxy are free, distinct, and neither of the system's range nor of Ray's own."""
    system_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with socket.socket() as holder:
        taken = free_ports(1)[0]
        holder.bind(("", taken))
        drawn = free_ports(len(DRAWN_PORTS) - 1_000)
    assert taken not in drawn
    assert len(set(drawn)) == len(drawn)
    assert min(drawn) > 19_999
    assert max(drawn) < min(30_000, system_from)


def test_a_taken_port_is_named_with_its_holder() -> None:
    """A start on a port that somebody holds fails before Ray, and names the process."""
    settings = fake_settings()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", settings.port))
        holder.listen()
        with pytest.raises(
            EnvironmentProblem, match=rf"port {settings.port} on 127.0.0.1 is taken by .*{os.getpid()}"
        ):
            launcher.start(settings)


def test_a_missing_provider_is_refused_before_ray_starts() -> None:
    """Asking for TensorRT on a machine without it fails at once, with words."""
    settings = fake_settings().model_copy(update={"provider": "tensorrt"})
    with pytest.raises(EnvironmentProblem, match="tensorrt"):
        launcher.start(settings)
