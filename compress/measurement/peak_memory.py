"""Peak memory of one variant, in a process of its own that imports nothing but what serving needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from contract.errors import EnvironmentProblem
from contract.family import Family
from contract.machine import Provider
from runtime.load import load_variant

# The longest texts: how many are answered one at a time, and how many of these then in one call.
ALONE = 20
TOGETHER = 8


def measure_peak_memory(
    folder: Path,
    family: Family,
    name: str,
    texts: Sequence[str],
    *,
    threads: int = 1,
    provider: Provider = "cpu",
) -> int:
    """Return the peak resident memory, in bytes, of a fresh process that loads one variant and answers texts.

    The interpreter and the inference library are counted: that is what a replica takes. What it answers are
    the `heaviest_calls` of the texts.

    Raises:
        EnvironmentProblem: when that process fails.
    """
    job = {
        "folder": str(folder),
        "family": family.dump(),
        "name": name,
        "calls": heaviest_calls(texts),
        "threads": threads,
        "provider": provider,
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from compress.measurement.peak_memory import report_peak_memory as run; run()",
        ],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = " ".join(line.strip() for line in done.stderr.splitlines()[-2:])
        raise EnvironmentProblem(f"measuring the memory of {name!r} failed: {last}")
    return int(done.stdout)


def heaviest_calls(texts: Sequence[str]) -> list[list[str]]:
    """Return the calls that take most memory: each of the longest texts alone, then a batch of them.

    A variant that is served one text at a time runs the batch so, too.
    """
    longest = sorted(texts, key=len, reverse=True)[:ALONE]
    return [*([text] for text in longest), longest[:TOGETHER]]


def report_peak_memory() -> None:
    """Do the job on stdin and print the peak to stdout: the child's half of `measure_peak_memory`."""
    job = json.load(sys.stdin)
    loaded = load_variant(
        Path(job["folder"]),
        Family.model_validate(job["family"]),
        job["name"],
        provider=job["provider"],
        threads=job["threads"],
    )
    for texts in job["calls"]:
        loaded.logits(texts)
    sys.stdout.write(str(_peak_bytes()))


def _peak_bytes() -> int:
    # Not getrusage: its peak survives exec, so that of a large parent would be reported.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
