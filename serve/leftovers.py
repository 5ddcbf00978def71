"""Processes and folders of gateways, found by a mark in their environment: only our own are ever ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil

MARK = "SLUICE_RUN"
"""Environment variable that every process of a run inherits; its value is the run folder."""
_OWNER = "owner.lock"
"""File in the run folder that launcher and host hold locked for as long as they live."""
_MAX_FOLDER = 24
"""HAProxy's control sockets lie 70 characters below the run folder and may be 97 long in all."""

Report = Callable[[str], None]


def make_run_folder() -> tuple[Path, IO[bytes]]:
    """Create a private folder for one run; return it with the open file whose lock marks it as owned.

    The run counts as alive until that file is closed here and in every process that has inherited it.
    """
    root = Path(tempfile.gettempdir())
    if len(str(root)) + len("/sluice-xxxxxxxx") > _MAX_FOLDER:
        root = Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix="sluice-", dir=root))
    unlocked = folder / f".{_OWNER}"
    held = unlocked.open("wb")
    fcntl.flock(held, fcntl.LOCK_EX)
    unlocked.rename(folder / _OWNER)
    return folder, held


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the live processes that carry the mark of that run, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK) == str(folder)
            if marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_processes(folder: Path, *, within_s: float = 5.0) -> int:
    """Kill every process of that run, those that appear meanwhile too; return how many."""
    ended: set[int] = set()
    until = time.monotonic() + within_s
    while (found := processes_of(folder)) and time.monotonic() < until:
        for process in found:
            try:
                process.kill()
                ended.add(process.pid)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=0.5)
    return len(ended)


def remove_run(folder: Path) -> int:
    """End what is left of a run and remove its folder; return how many processes were left."""
    ended = end_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def clean_dead_runs(report: Report) -> None:
    """Clean up after gateways whose owner was killed: their processes, HAProxy included, and folders."""
    for root in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for mark in root.glob(f"sluice-*/{_OWNER}"):
            try:
                if mark.stat().st_uid != os.getuid():
                    continue
                with mark.open("rb") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    ended = remove_run(mark.parent)
            except OSError:
                continue
            if ended:
                report(f"ended {ended} processes that a killed gateway had left behind ({mark.parent})")
