"""Processes and folders of gateways, found by a mark in their environment: only our own are ever ended."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil

from contract.errors import EnvironmentProblem

MARK = "SLUICE_RUN"
"""Environment variable that every process of a run inherits; its value is the run folder."""
_OWNER = "owner.lock"
"""File in the run folder that launcher and host hold locked for as long as they live."""
_MAX_FOLDER = 24
"""HAProxy's control sockets lie 70 characters below the run folder and may be 97 long in all."""

DRAWN_PORTS = range(20_000, 30_000)
"""Ports for what has to listen somewhere, whose number nobody needs to know."""

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


def check_port_free(host: str, port: int, flag: str) -> None:
    """Raise EnvironmentProblem that names the holder unless a server could listen on that port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return
        except PermissionError:
            raise EnvironmentProblem(
                f"port {port} needs more rights than this process has", hint=f"{flag} with a port above 1023"
            ) from None
        except OSError as problem:
            reason = problem.strerror
    holder = holder_of(port)
    if holder is None:
        raise EnvironmentProblem(f"cannot listen on {host}:{port}: {reason}", hint=f"another {flag}")
    raise EnvironmentProblem(
        f"port {port} is taken by {holder.name()} (pid {holder.pid})",
        hint=f"another {flag}, or end that process",
    )


def holder_of(port: int) -> psutil.Process | None:
    """Return the process that listens on a TCP port, where the system tells."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:
        return None
    return None


def free_ports(count: int) -> list[int]:
    """Return distinct TCP ports that are free on all interfaces and stay so unless drawn again.

    HAProxy listens seconds after the draw. Ports that the system hands out (32768 up on Linux) may be some
    connection's by then, and those of the replicas (30000 to 31000) and of Ray's workers (10002 to 19999)
    are Ray's.
    """
    found: list[int] = []
    for port in random.sample(DRAWN_PORTS, len(DRAWN_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise EnvironmentProblem(
        f"fewer than {count} TCP ports from {DRAWN_PORTS[0]} to {DRAWN_PORTS[-1]} are free",
        hint="end what listens there",
    )
