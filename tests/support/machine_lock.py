"""Whose turn it is on a machine that workers share: tests of time alone, all others side by side."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO


class MachineLock:
    """A lock that many tests share or one has alone; who waits to be alone is let in next.

    Locks of files end with their process. Newcomers pass a gate first, which is held by who waits to be
    alone: without it, workers that never pause would never leave the room empty.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._gate = folder / "gate.lock"
        self._room = folder / "room.lock"
        self._held: IO[str] | None = None

    def take(self, *, alone: bool) -> None:
        """Wait for the room and hold it, alone or with others; who holds it already keeps it."""
        if self._held is not None:
            return
        with self._gate.open("a") as gate:
            room = self._room.open("a")
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        self._held = room

    def leave(self) -> None:
        """Let the room go."""
        if self._held is not None:
            self._held.close()
            self._held = None


def lock_of_this_run() -> MachineLock | None:
    """Return the lock that the workers of this run share, or None where one process runs all tests."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    return MachineLock(Path(tempfile.gettempdir()) / f"sluice-tests-{run}") if run else None
