"""The parts of a gateway that can be harmed, found by what they are called among the processes of a run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from serve.local.processes import SeenProcess
from serve.local.run_folder import processes_of

PARTS: dict[str, Callable[[str], bool]] = {
    "gateway replica": lambda title: title == "ray::ServeReplica:sluicegate:gateway",
    "stage replica": lambda title: title.startswith("ray::ServeReplica:sluicegate:stage-"),
    "Control": lambda title: title == "ray::ServeReplica:sluicegate:control",
    "Serve controller": lambda title: title == "ray::ServeController",
    "HAProxy": lambda title: title.endswith("/haproxy"),
    "raylet": lambda title: title.endswith("/raylet"),
}


def find(folder: Path, part: str) -> list[SeenProcess]:
    """Return the processes of a run that are such a part, the youngest first."""
    found = [process for process in processes_of(folder) if PARTS[part](_title(process))]
    return sorted(found, key=lambda process: process.began_s, reverse=True)


def state_of(process: psutil.Process) -> str | None:
    """Return what the system says that a process does, such as "stopped"; None where it has ended."""
    with suppress(psutil.NoSuchProcess):
        if process.is_running() and (state := process.status()) != psutil.STATUS_ZOMBIE:
            return state
    return None


def kill(folder: Path, part: str) -> None:
    """End one process that is such a part, as the system does that has run out of memory."""
    os.kill(find(folder, part)[0].pid, signal.SIGKILL)


def freeze(folder: Path, part: str) -> None:
    """Stop one process that is such a part, so that it lives, keeps its sockets and answers nothing."""
    os.kill(find(folder, part)[0].pid, signal.SIGSTOP)


def freeze_for(folder: Path, part: str, seconds: float) -> None:
    """Freeze it and let it go on after some time, where it still is there."""
    process = psutil.Process(find(folder, part)[0].pid)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        os.kill(process.pid, signal.SIGCONT)


def memory_mb(folder: Path) -> dict[str, float]:
    """Return the resident memory of every process of a run, by what it is and its id."""
    found = {}
    for process in processes_of(folder):
        name = _title(process).rpartition("/")[2] or process.name
        with suppress(psutil.Error):  # it may have ended
            found[f"{name} {process.pid}"] = psutil.Process(process.pid).memory_info().rss / 1e6
    return found


def _title(process: SeenProcess) -> str:
    """Return how a process calls itself, without the method that an actor of Ray's is in."""
    first = next(iter(process.words), "").strip()
    return first.partition(".")[0] if first.startswith("ray::") else first


def wait_until(true: Callable[[], bool], within_s: float) -> float | None:
    """Return after how many seconds something was so; None where it never was."""
    began, never = time.monotonic(), threading.Event()
    while (passed := time.monotonic() - began) < within_s:
        if true():
            return passed
        never.wait(0.02)
    return None
