"""The parts of a gateway that can be harmed, found by what they are called among the processes of a run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from serve.local.run_folder import processes_of

PARTS: dict[str, Callable[[str], bool]] = {
    "gateway replica": lambda title: title == "ray::ServeReplica:sluicegate:gateway",
    "stage replica": lambda title: title.startswith("ray::ServeReplica:sluicegate:stage-"),
    "Control": lambda title: title == "ray::ServeReplica:sluicegate:control",
    "Serve controller": lambda title: title == "ray::ServeController",
    "HAProxy": lambda title: title.endswith("/haproxy"),
    "raylet": lambda title: title.endswith("/raylet"),
}


def find(folder: Path, part: str) -> list[psutil.Process]:
    """Return the processes of a run that are such a part, the youngest first."""
    found = []
    for process in processes_of(folder):
        try:
            if PARTS[part](_title(process)):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.create_time(), reverse=True)


def kill(folder: Path, part: str) -> None:
    """End one process that is such a part, as the system does that has run out of memory."""
    os.kill(find(folder, part)[0].pid, signal.SIGKILL)


def freeze(folder: Path, part: str) -> None:
    """Stop one process that is such a part, so that it lives, keeps its sockets and answers nothing."""
    os.kill(find(folder, part)[0].pid, signal.SIGSTOP)


def freeze_for(folder: Path, part: str, seconds: float) -> None:
    """Freeze it and let it go on after some time, where it still is there."""
    [process, *_] = find(folder, part)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        os.kill(process.pid, signal.SIGCONT)


def memory_mb(folder: Path) -> dict[str, float]:
    """Return the resident memory of every process of a run, by what it is and its id."""
    found = {}
    for process in processes_of(folder):
        try:
            name = _title(process).rpartition("/")[2] or process.name()
            found[f"{name} {process.pid}"] = process.memory_info().rss / 1e6
        except psutil.Error:
            continue
    return found


def _title(process: psutil.Process) -> str:
    """Return how a process calls itself, without the method that an actor of Ray's is in."""
    words = next(iter(process.cmdline()), "").strip()
    return words.partition(".")[0] if words.startswith("ray::") else words


def wait_until(true: Callable[[], bool], within_s: float) -> float | None:
    """Return after how many seconds something was so; None where it never was."""
    began, never = time.monotonic(), threading.Event()
    while (passed := time.monotonic() - began) < within_s:
        if true():
            return passed
        never.wait(0.02)
    return None
