"""Processes as they were when they were looked at: nobody asks one that may have ended since."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class SeenProcess:
    """A process when it was looked at; it may have ended since.

    Attributes:
        pid: its id.
        name: of its program.
        words: of its command line; those of Ray's that give themselves a title have that alone.
        began_s: when it began, in seconds since 1970.
    """

    pid: int
    name: str
    words: tuple[str, ...]
    began_s: float

    @property
    def command(self) -> str:
        """The command line in one piece."""
        return " ".join(self.words)


def look_at(process: psutil.Process) -> SeenProcess | None:
    """Return what a process is; None where it has ended or does not let itself be looked at."""
    try:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return SeenProcess(process.pid, process.name(), tuple(process.cmdline()), process.create_time())
    except (psutil.Error, OSError):
        return None
