"""What limits leave of memory, processes and disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime.room import disk_room, memory_room, process_room
from tests.runtime.test_machine import write

V1_STATISTICS = "inactive_file 1\ntotal_inactive_file 90000\ntotal_active_file 110000\n"
V2_STATISTICS = "anon 100\ninactive_file 90000\nactive_file 80000\nslab_reclaimable 30000\n"

LIMITED = """
import os, resource, sys
from runtime import room
if os.getuid() == 0:
    os.setresuid(12345, 12345, 12345)
most = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
found = room.process_room()
print(found.limit, found.most, found.left, sep="|")
"""


@pytest.mark.parametrize(
    "files",
    [
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/memory.max": "1000000\n",
            "sys/fs/cgroup/pod/memory.current": "700000\n",
            "sys/fs/cgroup/pod/memory.stat": V2_STATISTICS,
            "sys/fs/cgroup/pod/box/memory.max": "max\n",
            "sys/fs/cgroup/pod/box/memory.current": "600000\n",
        },
        {
            "proc/self/cgroup": "4:memory:/box\n0::/\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "1000000\n",
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "700000\n",
            "sys/fs/cgroup/memory/box/memory.stat": V1_STATISTICS,
        },
    ],
)
def test_the_tightest_group_leaves_its_limit_less_its_use(tmp_path: Path, files: dict[str, str]) -> None:
    """In both versions, files that the kernel only caches do not count as use, and the limit is named."""
    room = memory_room(write(tmp_path, files))
    assert (room.most, room.left) == (1_000_000, 500_000)
    assert "memory." in room.limit


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": "max\n"},
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
        },
        {},
    ],
)
def test_without_a_group_that_binds_the_machine_does(tmp_path: Path, files: dict[str, str]) -> None:
    """What the machine has available is what is left, however a group says that it has no limit."""
    room = memory_room(write(tmp_path, files))
    assert room.limit == "the machine's memory"
    assert 0 < room.left <= room.most


def test_a_group_of_processes_binds(tmp_path: Path) -> None:
    """pids.max less pids.current is what can be started, and never less than nothing."""
    files = {
        "proc/self/cgroup": "7:pids:/box\n0::/\n",
        "sys/fs/cgroup/pids/box/pids.max": "100\n",
        "sys/fs/cgroup/pids/box/pids.current": "40\n",
        "sys/fs/cgroup/pids/pids.max": "max\n",
    }
    room = process_room(write(tmp_path, files))
    assert room is not None
    assert (room.most, room.left) == (100, 60)
    assert "pids.max" in room.limit
    (tmp_path / "sys/fs/cgroup/pids/box/pids.current").write_text("140\n")
    full = process_room(tmp_path)
    assert full is not None
    assert full.left == 0


def test_the_limit_of_a_users_processes_counts_threads() -> None:
    """A real limit: what the user's processes and threads leave of it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    asked = 5000 if hard == resource.RLIM_INFINITY else min(5000, hard)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(asked)], capture_output=True, text=True, check=False
    )
    if "PermissionError" in done.stderr:
        pytest.skip("root here may not become another user")
    limit, most, left = done.stdout.strip().split("|")
    assert "ulimit -u" in limit, done.stderr
    assert int(most) == asked
    assert 0 <= int(left) < asked


def test_a_disk_leaves_bytes_and_files(tmp_path: Path) -> None:
    """What is left is what this user may take."""
    size, files = disk_room(tmp_path)
    assert size is not None
    assert 0 < size.left <= size.most
    assert str(tmp_path) in size.limit
    assert files is None or 0 < files.left <= files.most
    assert os.statvfs(tmp_path).f_files in {0, 0 if files is None else files.most}


def test_a_disk_that_reports_no_size_limits_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tmpfs with size=0 and a ramfs report no blocks at all, and take what memory takes."""
    found = SimpleNamespace(f_blocks=0, f_frsize=4096, f_bavail=0, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert disk_room(tmp_path) == (None, None)


@pytest.mark.parametrize(
    ("mapped", "is_limited"),
    [("         0          0 4294967295\n", False), ("0 1000 1\n1 100000 65536\n", True), ("0 0 1\n", True)],
)
def test_root_of_a_user_namespace_is_limited_as_its_user_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mapped: str, is_limited: bool
) -> None:
    """The kernel exempts the machine's root from `ulimit -u`, and no root that is another user outside."""
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5000, 5000))
    room = process_room(write(tmp_path, {"proc/self/uid_map": mapped}))
    assert (room is not None) == is_limited
