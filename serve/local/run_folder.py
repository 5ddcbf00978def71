"""Processes and folders of gateways, found by a mark in their environment: only our own are ever ended."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from contract.errors import EnvironmentProblem
from serve.local.processes import SeenProcess, look_at

MARK = "SLUICE_RUN"
"""Environment variable that every process of a run inherits; its value is the run folder."""
_OWNER = "owner.lock"
"""File in the run folder that launcher and host hold locked for as long as they live."""
MAX_ROOT = 8
"""Bytes: 16 more name the run, 70 one of HAProxy's control sockets, whose path may be 97 long in all."""

_PLAIN = re.compile(r"[A-Za-z0-9./+@:,=~_-]+")
"""What Ray writes into HAProxy's configuration as it is, where a blank begins another word."""

Report = Callable[[str], None]


def run_root(report: Report = lambda _: None) -> Path:
    """Return where folders of runs are made: TMPDIR where it will do, else the first usual place that does.

    Args:
        report: told why TMPDIR was passed over.

    Raises:
        EnvironmentProblem: none will, with the reason for each.
    """
    refused = []
    for root in _roots():
        if len(os.fsencode(root)) > MAX_ROOT:
            refused.append(f"{root} is longer than {MAX_ROOT} bytes")
            continue
        if not _PLAIN.fullmatch(str(root)):
            refused.append(f"{str(root)!a} has characters beyond A-Z, a-z, 0-9 and ./+@:,=~_-")
            continue
        try:
            Path(tempfile.mkdtemp(prefix="sluice-", dir=root)).rmdir()
        except OSError as problem:
            refused.append(f"{root}: {problem.strerror}")
        else:
            if refused and os.environ.get("TMPDIR"):
                report(f"TMPDIR is passed over for {root}: {refused[0]}")
            return root
    raise EnvironmentProblem(
        f"no folder for the gateway's files and sockets ({'; '.join(refused)})",
        hint=f"TMPDIR=DIR, a writable folder with a plain path of at most {MAX_ROOT} bytes",
    )


def _roots() -> list[Path]:
    asked = Path(os.environ.get("TMPDIR", ""))
    found = [asked] if asked.is_absolute() else []
    with suppress(FileNotFoundError):  # no place at all can be written, which is told with reasons later
        found.append(Path(tempfile.gettempdir()))
    return list(dict.fromkeys([*found, Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]))


class RunLock:
    """Marks a run folder as owned.

    The run counts as alive until this is closed, and in every process that has inherited the file.
    """

    def __init__(self, folder: Path) -> None:
        # systemd-tmpfiles, which empties /tmp of what is old, passes over a folder that is locked itself.
        with ExitStack() as opened:
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, directory)
            fcntl.flock(directory, fcntl.LOCK_SH)
            unlocked = folder / f".{_OWNER}"
            self._file = opened.enter_context(unlocked.open("wb"))
            fcntl.flock(self._file, fcntl.LOCK_EX)
            unlocked.rename(folder / _OWNER)
            self._opened = opened.pop_all()

    def fileno(self) -> int:
        """Return the number of the file for another process to inherit."""
        return self._file.fileno()

    def close(self) -> None:
        """Let go. Safe to call again."""
        self._opened.close()


def make_run_folder(root: Path) -> tuple[Path, RunLock]:
    """Create a private folder for one run below `root`; return it with the lock that marks it as owned."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-", dir=root))
    return folder, RunLock(folder)


def processes_of(folder: Path) -> list[SeenProcess]:
    """Return the processes of that run that live now, this one left out."""
    return [one for one in map(look_at, _alive(folder)) if one is not None]


def _alive(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if (
                _is_of(process, folder)
                and process.pid != os.getpid()
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _is_of(process: psutil.Process, folder: Path) -> bool:
    """Return whether a process carries the mark of that run, or has a title of Ray's and works in its folder.

    Ray writes titles over the environment as others see it, so that the mark may be gone.
    """
    if process.environ().get(MARK) == str(folder):
        return True
    title = next(iter(process.cmdline()), "")
    return title.startswith("ray::") and process.cwd() == str(folder)


def end_processes(folder: Path, *, within_s: float = 5.0, but: Callable[[], set[int]] = set) -> int:
    """Kill every process of that run, those that appear meanwhile too; return how many.

    Those whose ids `but` names at the time live on.
    """
    ended: set[int] = set()
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        found = _alive(folder)
        spared = but()  # after the look, so that it knows whatever was found
        found = [process for process in found if process.pid not in spared]
        if not found:
            break
        for process in found:
            try:
                process.kill()
                ended.add(process.pid)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=0.5)
    return len(ended)


def remove_run(folder: Path) -> int:
    """End what is left of a run and remove its folder; return how many processes were left.

    Signals that come meanwhile are handled after that: a second Ctrl-C must not leave half of it.
    """
    with _signals_later():
        ended = end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return ended


@contextmanager
def _signals_later() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where no handler runs
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for missed in dict.fromkeys(came):
            signal.raise_signal(missed)


def clean_dead_runs(report: Report) -> None:
    """Clean up after gateways whose owner was killed: their processes, HAProxy included, and folders."""
    for root in _roots():
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
