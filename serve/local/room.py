"""Whether this machine has room for a gateway: looked at before anything is started, and refused in words.

The figures were measured on Linux with the fake family and are what the gateway itself takes; models come
on top. Refused is only what cannot work: a machine that is merely tight gets its chance.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from contract.errors import EnvironmentProblem
from runtime.room import Room, disk_room, memory_room, process_room
from serve.local.run_folder import MAX_ROOT
from serve.settings.gateway import Settings

MIB = 1 << 20
OBJECT_STORE_BYTES = 100 * MIB
"""Of Ray; a gateway puts nothing there, so it is as small as Ray allows."""
_SHARED_MEMORY = Path("/dev/shm")

_MEMORY_BYTES, _MEMORY_BYTES_PER_REPLICA = 900 * MIB, 120 * MIB
_THREADS, _THREADS_PER_REPLICA = 400, 35
_DISK_BYTES = 16 * MIB
_FILES = 300
_SIZES = (
    (resource.RLIMIT_AS, "-v", "LimitAS=", 3 << 30),
    (resource.RLIMIT_DATA, "-d", "LimitDATA=", 2 << 30),
    (resource.RLIMIT_FSIZE, "-f", "LimitFSIZE=", 128 * MIB),
)
"""Limits that a process of the gateway reaches by itself: address space, data, and the store's file."""


def check_room(settings: Settings, folder: Path, root: Path = Path("/")) -> None:
    """Refuse to start where a gateway cannot run, naming the limit, what it leaves, and the remedy.

    Args:
        settings: of the gateway.
        folder: where its run folder will be.
        root: where /proc and /sys are found.

    Raises:
        EnvironmentProblem: too little memory, disk, or room for processes, or too low a limit.
    """
    _check_sizes()
    replicas = settings.gateway_replicas
    fewer = f", or --replicas 1 in place of {replicas}" if replicas > 1 else ""
    threads = _THREADS + replicas * _THREADS_PER_REPLICA
    processes = process_room(root)
    if processes is not None and processes.left < threads:
        raise EnvironmentProblem(
            f"a gateway starts about {threads} processes and threads, and {processes.limit}, "
            f"{processes.most}, leaves {processes.left}",
            hint="a higher limit (ulimit -u, docker run --pids-limit, the kubelet's podPidsLimit, systemd's "
            f"TasksMax=){fewer}",
        )
    _check_bytes(
        "memory, and its models more",
        memory_room(root),
        _MEMORY_BYTES + replicas * _MEMORY_BYTES_PER_REPLICA,
        f"more memory for this container or machine{fewer}",
    )
    _check_disk(folder)


def shares_memory() -> bool:
    """Return whether Ray can keep its object store where it usually is, in shared memory."""
    return os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)


def _check_disk(folder: Path) -> None:
    needed = _DISK_BYTES
    store = _SHARED_MEMORY if shares_memory() else folder
    stored, _ = disk_room(store)
    is_full = stored is not None and stored.left < OBJECT_STORE_BYTES
    if is_full or store.stat().st_dev == folder.stat().st_dev:
        needed += OBJECT_STORE_BYTES
    size, files = disk_room(folder)
    remedy = f"room there, or TMPDIR=DIR, a path of at most {MAX_ROOT} bytes, on another disk"
    if size is not None:
        _check_bytes("disk for a run", size, needed, remedy)
    if files is not None and files.left < _FILES:
        raise EnvironmentProblem(
            f"a run writes about {_FILES} files, and {files.limit} leave {files.left}", hint=remedy
        )


def _check_bytes(what: str, room: Room, needed: int, remedy: str) -> None:
    if room.left < needed:
        raise EnvironmentProblem(
            f"a gateway needs about {needed // MIB} MiB of {what}; {room.limit}, {room.most // MIB} MiB, "
            f"leaves {room.left // MIB} MiB",
            hint=remedy,
        )


def _check_sizes() -> None:
    for number, letter, unit, needed in _SIZES:
        soft, hard = resource.getrlimit(number)
        if soft != resource.RLIM_INFINITY and soft < needed:
            remedy = f"ulimit {letter} unlimited"
            if hard != resource.RLIM_INFINITY:
                remedy += f" as root, who may raise the hard limit, or {unit}infinity for a systemd service"
            raise EnvironmentProblem(
                f"processes of a gateway need {needed // MIB} MiB under the limit `ulimit {letter}`, "
                f"which is {soft // MIB} MiB",
                hint=remedy,
            )
