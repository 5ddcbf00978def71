"""How a gateway starts, ends and is cleaned up after: whatever is interrupted or killed, no process stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from contract.errors import EnvironmentProblem
from serve import launcher
from serve.leftovers import MARK, clean_dead_runs
from serve.settings import Settings
from tests.serve.conftest import fake_settings

SERVE = (
    "import sys; from serve import launcher; from serve.settings import Settings; "
    "launcher.run_until_stopped(Settings.model_validate_json(sys.argv[1]), lambda m: print(m, flush=True))"
)


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """A foreground gateway in a process of its own, with the lines that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, settings.model_dump_json()],
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
        folder = child.environ().get(MARK)
        if folder:
            return Path(folder)
    raise AssertionError("it has no host process")


def gone(folder: Path, within_s: float = 20) -> bool:
    """Whether no process of a run is left, now or soon."""
    end = time.monotonic() + within_s
    while folder in run_folders().values():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.ray
@pytest.mark.parametrize("word", ["starting Ray", "loading variants"])
def test_ctrl_c_while_starting_leaves_nothing(word: str) -> None:
    """SIGINT at any point of the start ends with code 0, no process and no folder."""
    with serving(fake_settings()) as (process, lines):
        until(lines, word)
        folder = folder_of(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert gone(folder, 0)
    assert not folder.exists()


@pytest.mark.ray
def test_sigterm_answers_what_is_in_hand_and_exits_0() -> None:
    """Requests in hand at SIGTERM are answered; then the gateway ends with code 0 and leaves nothing."""
    settings = fake_settings()
    with serving(settings) as (process, lines):
        until(lines, "ready at")
        folder = folder_of(process)
        url = f"http://127.0.0.1:{settings.port}/v1/classify"
        slow = {"inputs": [f"story {n}" for n in range(200)], "model": "fake-large"}
        with httpx.Client(timeout=30, trust_env=False) as client:
            with client.stream("POST", url, json=slow) as reply:
                process.send_signal(signal.SIGTERM)
                assert reply.status_code == 200
                reply.read()
            assert len(reply.json()["outputs"]) == 200
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
def test_a_killed_host_is_reported_and_cleaned_up() -> None:
    """With the host process killed, the foreground process fails loudly and ends what is left."""
    with serving(fake_settings()) as (process, lines):
        until(lines, "ready at")
        folder = folder_of(process)
        psutil.Process(process.pid).children()[0].kill()
        assert process.wait(30) == 1
    assert gone(folder, 0)


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
    said: list[str] = []
    clean_dead_runs(said.append)
    assert gone(folder, 0)
    assert not folder.exists()


def test_a_taken_port_is_named_with_its_holder() -> None:
    """A start on a port that somebody holds fails before Ray, and names the process."""
    settings = fake_settings()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", settings.port))
        holder.listen()
        with pytest.raises(EnvironmentProblem, match=rf"port {settings.port} is taken by .*{os.getpid()}"):
            launcher.start(settings)


def test_a_missing_provider_is_refused_before_ray_starts() -> None:
    """Asking for TensorRT on a machine without it fails at once, with words."""
    settings = fake_settings().model_copy(update={"provider": "tensorrt"})
    with pytest.raises(EnvironmentProblem, match="tensorrt"):
        launcher.start(settings)
