"""What this machine is and what of it this process may use: processor, limits, instruction sets, versions."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

from contract.machine import Machine

_PACKAGES = ("sluicegate", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers", "ray", "torch")
# Instruction sets that decide how fast INT8 and BF16 run, as /proc/cpuinfo spells them.
_ISA = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
)


def describe_machine() -> Machine:
    """Return the machine as this process sees it, control-group limits included."""
    flags = _flags()
    return Machine(
        cpu=_cpu_model(),
        cores=usable_cores(),
        memory_bytes=usable_memory_bytes(),
        isa=tuple(name for name in _ISA if name in flags),
        gpu=_gpu(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=_versions(),
    )


def usable_cores(root: Path = Path("/")) -> float:
    """Return the logical cores that this process may use: its affinity, cut by its control groups' quotas.

    Args:
        root: where /proc and /sys are found.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    return max(min([cores, *(limit for _, limit in cpu_quotas(root))]), 0.01)


def core_count(root: Path = Path("/")) -> int:
    """Return `usable_cores` as a number of threads or processes worth starting: whole, and at least 1."""
    return max(1, int(usable_cores(root)))


def usable_memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory that this process may use: the machine's, cut by its control groups' limits."""
    memory = int(psutil.virtual_memory().total)
    for folder in control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = number_in(folder / name)
            if limit is not None and limit > 0:
                memory = min(memory, int(limit))
    return memory


def control_groups(root: Path, controller: str) -> list[Path]:
    """Return the folders, innermost first, whose limits bind this process, of control groups version 2 or 1.

    Args:
        root: where /proc and /sys are found.
        controller: of version 1, such as "memory".
    """
    base = root / "sys/fs/cgroup"
    found: list[Path] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            top = base / "unified" if (base / "unified").is_dir() else base
        elif controller in controllers.split(","):
            top = base / controllers if (base / controllers).is_dir() else base / controller
        else:
            continue
        inner = top / path.lstrip("/")
        # Inside a container the path is the host's and may not exist here: the top then holds the limits.
        found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return found


def cpu_quotas(root: Path = Path("/")) -> list[tuple[Path, float]]:
    """Return each control group that limits the processors of this process, with its limit in cores."""
    found = [(folder, *_pair(folder)) for folder in control_groups(root, "cpu")]
    return [(folder, quota / period) for folder, quota, period in found if quota and period]


def _pair(folder: Path) -> tuple[float | None, float | None]:
    content = _read(folder / "cpu.max").split()
    if len(content) == 2 and content[0] != "max":
        return float(content[0]), float(content[1])
    quota = number_in(folder / "cpu.cfs_quota_us")
    if quota is None or quota <= 0:
        return None, None
    return quota, number_in(folder / "cpu.cfs_period_us")


def number_in(path: Path) -> float | None:
    """Return the number in a file of a control group; None where there is none, or no limit ("max")."""
    try:
        value = float(_read(path))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpuinfo(key: str) -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == key:
            return value.strip()
    return ""


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _flags() -> frozenset[str]:
    return frozenset((_cpuinfo("flags") or _cpuinfo("features")).split())


def _gpu() -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return ", ".join(names) or None


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
