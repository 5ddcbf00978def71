"""What is left of what this machine allows this process: memory, processes, files; and under which limit."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

import psutil

from runtime.machine import control_groups, number_in

# Processes with one of these may exceed RLIMIT_NPROC, as root may: CAP_SYS_ADMIN and CAP_SYS_RESOURCE.
_MAY_EXCEED = 1 << 21 | 1 << 24


@dataclass(frozen=True)
class Room:
    """What one limit leaves.

    Attributes:
        limit: what limits, in words that tell an administrator where to look.
        most: the limit.
        left: what of it is not in use.
    """

    limit: str
    most: int
    left: int


def memory_room(root: Path = Path("/")) -> Room:
    """Return the bytes of memory that can still be used: the machine's, or less where a control group binds.

    Args:
        root: where /proc and /sys are found.
    """
    memory = psutil.virtual_memory()
    rooms = [Room("the machine's memory", int(memory.total), int(memory.available))]
    for folder in control_groups(root, "memory"):
        for limit, used, reclaimable in (
            ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")),
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ("total_inactive_file", "total_active_file"),
            ),
        ):
            most, taken = number_in(folder / limit), number_in(folder / used)
            if most is not None and taken is not None and most > 0:
                # The kernel takes back cached files before it runs out, those in recent use too.
                statistics = _statistics(folder / "memory.stat")
                held = max(taken - sum(statistics.get(name, 0.0) for name in reclaimable), 0.0)
                rooms.append(Room(f"the control group's {limit}", int(most), max(int(most - held), 0)))
    return min(rooms, key=lambda room: room.left)


def process_room(root: Path = Path("/")) -> Room | None:
    """Return how many processes and threads can still be started; None where nothing limits them.

    Args:
        root: where /proc and /sys are found.
    """
    rooms = []
    for folder in control_groups(root, "pids"):
        most, taken = number_in(folder / "pids.max"), number_in(folder / "pids.current")
        if most is not None and taken is not None:
            rooms.append(Room("the control group's pids.max", int(most), max(int(most - taken), 0)))
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and not _may_exceed(root):
        rooms.append(Room("the user's limit of processes (ulimit -u)", soft, max(soft - _own_threads(), 0)))
    return min(rooms, key=lambda room: room.left, default=None)


def disk_room(folder: Path) -> tuple[Room | None, Room | None]:
    """Return the bytes that a folder can still take, and the files; None each where they are not counted."""
    found = os.statvfs(folder)
    most, left = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    size = Room(f"the disk of {folder}", most, left) if found.f_blocks else None
    files = Room(f"the inodes of {folder}", found.f_files, found.f_favail) if found.f_files else None
    return size, files


def _may_exceed(root: Path) -> bool:
    if not _is_in_first_namespace(root):
        return False
    if os.getuid() == 0:
        return True
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) & _MAY_EXCEED)
    return False


def _is_in_first_namespace(root: Path) -> bool:
    """Whether user ids mean what they mean to the kernel: root of another namespace is somebody outside."""
    try:
        mapped = (root / "proc/self/uid_map").read_text(encoding="utf-8").split()
    except OSError:  # a kernel without user namespaces
        return True
    return mapped == ["0", "0", "4294967295"]


def _own_threads() -> int:
    """Threads of all processes of this user that can be seen: what RLIMIT_NPROC counts."""
    count = 0
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid():
                count += process.num_threads()
        except psutil.Error:
            continue
    return count


def _statistics(path: Path) -> dict[str, float]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = [line.partition(" ") for line in lines]
    return {key: float(value) for key, _, value in pairs if value.strip().isdecimal()}
