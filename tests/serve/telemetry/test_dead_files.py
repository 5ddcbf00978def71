"""Metrics files of ended processes: few, whatever came and went, and every count kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.telemetry.dead_files import DEPLOY_PREFIX, alone_in, tidy

COUNT = """
import sys
from serve.telemetry.metrics import Telemetry
telemetry = Telemetry()
telemetry.requests.labels("", "cascade", "small", "ok").inc(3)
for value in (0.003, 0.2):
    telemetry.request_duration.labels("", "cascade", "total").observe(value)
telemetry.queue_items.labels("", "small").set(7)
"""
SHOW = (
    "import sys; from serve.telemetry.metrics import Telemetry; sys.stdout.buffer.write(Telemetry().counts())"
)

NOBODY = 1 << 22
"""No process has this number: it is beyond the highest."""


def run(code: str, folder: Path) -> bytes:
    """Run code in a process that counts in that folder; return what it says."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True
    ).stdout


def samples(page: bytes) -> dict[str, float]:
    """The sums of a page by sample, buckets apart."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found[f"{sample.name} {sample.labels}"] = sample.value
    return found


def counted(folder: Path) -> dict[str, float]:
    """What a scrape says that requests were."""
    return {name: value for name, value in samples(run(SHOW, folder)).items() if "'cascade'" in name}


def test_processes_that_end_leave_their_counts_and_not_their_files(tmp_path: Path) -> None:
    """Once all have ended there is one file of each kind, and it says what they had counted."""
    expected: dict[str, float] = {}
    for turn in range(1, 3):
        run(COUNT, tmp_path)
        one = counted(tmp_path)
        expected = expected or one
        assert one == {name: turn * value for name, value in expected.items()}
    assert len(expected) > 10
    with alone_in(tmp_path):
        tidy(tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert [name.partition("-")[0] for name in files] == ["counter_merged", "histogram_merged", "lock"]
    assert counted(tmp_path) == {name: 2 * value for name, value in expected.items()}


@pytest.mark.parametrize("appeared", [False, True])
def test_a_merge_that_was_killed_counts_nothing_twice(tmp_path: Path, appeared: bool) -> None:
    """Before the merged file is there the others count; afterwards it does, and they go."""
    run(COUNT, tmp_path)
    expected = counted(tmp_path)
    run(COUNT, tmp_path)
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("*.db")}
    with alone_in(tmp_path):
        tidy(tmp_path)
    for kind in ("counter", "histogram"):
        [merged] = tmp_path.glob(f"{kind}_merged-*.db")
        inputs = [name for name in kept if name.startswith(kind)]
        for name in inputs:
            (tmp_path / name).write_bytes(kept[name])
        merged.with_suffix(".json").write_text(str(inputs).replace("'", '"') if appeared else "[")
        if not appeared:
            merged.rename(merged.with_suffix(".part"))
    assert counted(tmp_path) == {name: 2 * value for name, value in expected.items()}


def test_folders_of_earlier_deploys_go_once_their_processes_have(tmp_path: Path) -> None:
    """Whoever starts removes them; what another run still writes, or has just made, stays."""
    over, running, fresh, foreign = (
        tmp_path / name
        for name in (f"{DEPLOY_PREFIX}a", f"{DEPLOY_PREFIX}b", f"{DEPLOY_PREFIX}c", "other-metrics")
    )
    for folder in (over, running, fresh, foreign):
        folder.mkdir()
        (folder / f"counter_{NOBODY}.db").touch()
    (running / f"counter_{os.getpid()}.db").touch()
    for folder in (over, running, foreign):
        os.utime(folder, (1, 1))
    run(COUNT, tmp_path / f"{DEPLOY_PREFIX}d")
    assert not over.exists()
    assert running.exists()
    assert fresh.exists()
    assert foreign.exists()
