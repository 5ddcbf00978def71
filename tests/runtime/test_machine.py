"""What the machine is, from control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.machine import core_count, describe_machine, usable_cores, usable_memory_bytes


def write(root: Path, files: dict[str, str]) -> Path:
    """Lay out a fake /proc and /sys."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_describes_this_machine() -> None:
    """Model, cores, memory and versions are all there."""
    machine = describe_machine()
    assert machine.cpu
    assert machine.cores > 0
    assert machine.memory_bytes > 2**20
    assert "numpy" in machine.packages


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/pod/box\n", "sys/fs/cgroup/pod/box/cpu.max": "50000 100000\n"},
        {"proc/self/cgroup": "0::/pod/box\n", "sys/fs/cgroup/pod/cpu.max": "50000 100000\n"},
        {"proc/self/cgroup": "0::/hosts/path\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"},
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/box\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        },
        {
            "proc/self/cgroup": "1:cpu:/a/b\n0::/\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us": "-1\n",
        },
        {
            "proc/self/cgroup": "2:memory:/box\n0::/box\n",
            "sys/fs/cgroup/unified/box/cpu.max": "50000 100000\n",
        },
    ],
)
def test_quotas_cut_the_cores(tmp_path: Path, files: dict[str, str]) -> None:
    """Own and outer quotas bind, of version 1, of 2 and of both side by side; a count is at least 1."""
    assert usable_cores(write(tmp_path, files)) == 0.5
    assert core_count(tmp_path) == 1


def test_no_quota_leaves_the_cores(tmp_path: Path) -> None:
    """ "max" and -1 mean no limit."""
    free = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}
    old = {"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"}
    assert usable_cores(write(tmp_path / "a", free)) >= 1
    assert usable_cores(write(tmp_path / "b", old)) >= 1


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": "1048576\n"},
        {"proc/self/cgroup": "4:memory:/box\n", "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "1048576"},
    ],
)
def test_limits_cut_the_memory(tmp_path: Path, files: dict[str, str]) -> None:
    """The smallest limit on the way up binds."""
    assert usable_memory_bytes(write(tmp_path, files)) == 2**20


def test_unlimited_memory_is_the_machines(tmp_path: Path) -> None:
    """ "max" is no limit."""
    files = {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": "max\n"}
    assert usable_memory_bytes(write(tmp_path, files)) > 2**20
