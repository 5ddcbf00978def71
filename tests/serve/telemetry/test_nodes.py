"""The counts of several nodes in one page."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from serve.telemetry.nodes import join_pages

COUNT = """
import sys
from serve.telemetry.metrics import Telemetry
telemetry = Telemetry()
telemetry.requests.labels("", "cascade", "small", "ok").inc(int(sys.argv[1]))
telemetry.request_duration.labels("", "cascade", "total").observe(0.01)
sys.stdout.buffer.write(telemetry.counts())
"""


def node(folder: Path, *counted: int) -> bytes:
    """The page of a node on which several processes have counted, one after the other."""
    page = b""
    for each in counted:
        page = subprocess.run(
            [sys.executable, "-c", COUNT, str(each)],
            env={"PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[3])},
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    return page


def test_totals_over_two_nodes_are_exact_and_each_nodes_part_can_be_told(tmp_path: Path) -> None:
    """What two processes on one node and one on another counted adds up, by node and over both."""
    page = join_pages({"a": node(tmp_path / "a", 2, 3), "b": node(tmp_path / "b", 7)}).decode()
    counted: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            counted[sample.name, sample.labels["node"]] += int(sample.value)
    assert counted["sluice_requests_total", "a"] == 5
    assert counted["sluice_requests_total", "b"] == 7
    assert counted["sluice_request_duration_seconds_count", "a"] == 2
    assert counted["sluice_request_duration_seconds_count", "b"] == 1
    assert page.count("# TYPE sluice_requests_total counter") == 1
