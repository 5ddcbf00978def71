"""Processes end whenever they like: what was seen of them stays, and who is gone is nobody."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serve.local.processes import look_at
from serve.local.run_folder import MARK, make_run_folder, processes_of, remove_run, run_root


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder of a run."""
    made, lock = make_run_folder(run_root())
    yield made
    lock.close()
    remove_run(made)


def test_what_was_seen_is_told_after_the_end(folder: Path) -> None:
    """Id, name and command line are those that the process had, although nobody is there to be asked."""
    with subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: str(folder)}) as process:
        [seen] = processes_of(folder)
        process.kill()
    assert (seen.pid, seen.name, seen.command) == (process.pid, "sleep", "sleep 60")
    assert processes_of(folder) == []


def test_who_ends_while_being_looked_at_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is there for its mark and gone for its name is none of the run's."""

    def end(process: psutil.Process) -> str:
        raise psutil.NoSuchProcess(process.pid)

    with subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: str(folder)}) as process:
        with monkeypatch.context() as patch:
            patch.setattr(psutil.Process, "name", end)
            assert processes_of(folder) == []
        process.kill()


def test_a_process_that_nobody_has_waited_for_is_gone() -> None:
    """What has ended and is still in the table counts as ended."""
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert look_at(psutil.Process(process.pid)) is None
