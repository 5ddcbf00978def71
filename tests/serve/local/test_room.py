"""A machine without room for a gateway is refused before anything starts, with the limit and the remedy."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from contract.errors import EnvironmentProblem
from runtime.room import Room
from serve.local import room
from serve.local.room import check_room
from serve.local.run_folder import make_run_folder, run_root
from serve.settings.gateway import Settings
from serve.settings.stages import FakeSettings

TWO = Settings(fake=FakeSettings(), replicas=2)
LOW = """
import resource, sys
from pathlib import Path
from serve.local import launcher
from serve.settings.gateway import Settings
from serve.settings.stages import FakeSettings
number = getattr(resource, sys.argv[1])
resource.setrlimit(number, (1 << 30, 1 << 30 if sys.argv[2:] else resource.getrlimit(number)[1]))
launcher.start(Settings(fake=FakeSettings()))
"""


def group(root: Path, controller: str, **numbers: int) -> Path:
    """Lay out a control group of version 2 with these numbers."""
    folder = root / "sys/fs/cgroup/box"
    folder.mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/box\n")
    for name, number in numbers.items():
        (folder / f"{controller}.{name}").write_text(f"{number}\n")
    return root


def test_room_enough_is_not_refused(tmp_path: Path) -> None:
    """On this machine, which runs gateways in other tests, the check says nothing."""
    check_room(TWO, tmp_path)


def test_too_little_memory_names_limit_use_and_remedy(tmp_path: Path) -> None:
    """A group whose memory would not hold the gateway's processes is refused, a smaller one offered."""
    root = group(tmp_path, "memory", max=600 << 20, current=100 << 20)
    with pytest.raises(
        EnvironmentProblem, match=r"memory.max, 600 MiB, leaves 500 MiB\n  try: .*--replicas 1 in place of 2"
    ):
        check_room(TWO, tmp_path, root)
    with pytest.raises(EnvironmentProblem) as alone:
        check_room(TWO.model_copy(update={"replicas": 1}), tmp_path, root)
    assert "--replicas" not in str(alone.value)


def test_too_few_processes_names_limit_use_and_remedy(tmp_path: Path) -> None:
    """Threads count as processes do, as the kernel counts them."""
    root = group(tmp_path, "pids", max=256, current=56)
    with pytest.raises(EnvironmentProblem, match=r"pids.max, 256, leaves 200\n  try: .*--pids-limit"):
        check_room(TWO, tmp_path, root)


def test_a_full_disk_names_folder_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and inodes are looked at where the run folder will be."""
    whole, empty = (
        Room(f"the disk of {tmp_path}", 1 << 30, 1 << 30),
        Room(f"the disk of {tmp_path}", 1 << 30, 0),
    )
    for size, files in ((empty, None), (whole, Room(f"the inodes of {tmp_path}", 1000, 3))):
        monkeypatch.setattr(room, "disk_room", lambda _, found=(size, files): found)
        with pytest.raises(EnvironmentProblem, match=rf"(?s){re.escape(str(tmp_path))}.*TMPDIR"):
            check_room(TWO, tmp_path)
    monkeypatch.setattr(room, "disk_room", lambda _: (None, None))
    check_room(TWO, tmp_path)


@pytest.mark.parametrize(("name", "words"), [("RLIMIT_AS", "ulimit -v"), ("RLIMIT_DATA", "ulimit -d")])
def test_a_low_limit_on_sizes_is_refused_by_name(name: str, words: str) -> None:
    """A real limit, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", LOW, name], capture_output=True, text=True, check=False)
    assert f"`{words}`, which is 1024 MiB\n  try: {words} unlimited\n" in done.stderr


def test_a_low_hard_limit_names_who_can_raise_it() -> None:
    """`ulimit -v unlimited` fails there, so the remedy is root's or the service manager's."""
    command = [sys.executable, "-c", LOW, "RLIMIT_AS", "hard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "try: ulimit -v unlimited as root" in done.stderr
    assert "LimitAS=infinity" in done.stderr


@pytest.fixture
def usual_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but /tmp, /var/tmp and /dev/shm, wherever these tests have their own files."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")


@pytest.mark.usefixtures("usual_places")
def test_a_folder_that_takes_nothing_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A TMPDIR too long or not plain is left for /tmp, and a /tmp that takes nothing for /var/tmp."""
    make = tempfile.mkdtemp
    assert str(run_root(pytest.fail)) == "/tmp"
    for asked in (str(tmp_path), "/a b", "/\u00fc"):
        monkeypatch.setenv("TMPDIR", asked)
        said: list[str] = []
        assert str(run_root(said.append)) == "/tmp"
        assert [words.partition(": ")[0] for words in said] == ["TMPDIR is passed over for /tmp"]

    def only_var(*, prefix: str, dir: Path) -> str:
        if str(dir) != "/var/tmp":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", only_var)
    assert str(run_root()) == "/var/tmp"


@pytest.mark.usefixtures("usual_places")
def test_where_no_folder_will_do_each_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only root file system, or a full one, is refused with TMPDIR as the way out."""

    def full(*, prefix: str, dir: Path) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("TMPDIR", "/a/folder/with/a/long/path")
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(EnvironmentProblem) as told:
        make_run_folder(run_root())
    words = str(told.value)
    assert "/a/folder/with/a/long/path is longer than 8 bytes; " in words
    assert "/tmp: No space left on device; /var/tmp: No space" in words
    assert "try: TMPDIR=DIR" in words
