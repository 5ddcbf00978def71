"""Metrics on a disk that fills up: the process lives on and counts on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.telemetry.disk import KINDS, RESERVED_BYTES

COUNT = """
import os, sys
from pathlib import Path
place = Path(sys.argv[1])
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(place / "metrics")
from serve.telemetry.metrics import Telemetry
telemetry = Telemetry()
with (place / "filler").open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
for n in range(1000):
    telemetry.stage_retries.labels("", f"variant-{n}", "sent").inc()
print(sum(page.count(b"variant-") for page in telemetry.render(1, None).splitlines()))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the files and little more."""
    size = (len(KINDS) + 1) * RESERVED_BYTES
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"this user may not mount a file system of its own: {mounted.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_on_a_full_disk_a_process_counts_on(small_disk: Path) -> None:
    """The room for a thousand series was taken before the disk filled up, so that no write to it kills."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(small_disk)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "1000"), done.stderr
