"""The wall clock may jump: nothing that waits, expires within a request, or is measured asks it."""

from __future__ import annotations

import ast
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluicegate.own_packages import HOME
from tests.serve.parts import Served

WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
DATED = {
    "serve/access",  # keys expire, and quotas begin, at a day and time that a person set
    "serve/telemetry/dead_files.py",  # files are
    "serve/telemetry/tracing.py",  # spans are on the calendar
    "serve/collecting/collector.py",  # rows are kept for so many days
    "serve/standin/app.py",  # a chat completion says when it was made
    "serve/control",  # revisions, trials and exposure say when they were written
}
"""Where a date is what is meant, and nothing waits for it."""


def _asked(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in WALL:
                yield f"{path.relative_to(HOME)}:{node.lineno} {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (
                f"{path.name}:{node.lineno} {alias.name}" for alias in node.names if alias.name == "time"
            )


def test_only_what_is_dated_asks_the_wall_clock() -> None:
    """Deadlines, queues, health checks and latencies are on the monotonic clock, in every module."""
    found = [line for path in sorted((HOME / "serve").rglob("*.py")) for line in _asked(path)]
    assert [line for line in found if not line.startswith(tuple(DATED))] == []


def test_a_request_does_not_notice_that_the_wall_clock_jumps(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the clock a day forward or back between two looks, requests with a deadline are answered."""
    real, looks = time.time, [0]

    def jumping() -> float:
        looks[0] += 1
        return real() + (86_400 if looks[0] % 2 else -86_400)

    monkeypatch.setattr(time, "time", jumping)
    body = json.dumps({"inputs": ["sport: a", "b"], "deadline_ms": 5000}).encode()
    for _ in range(20):
        request = urllib.request.Request(
            f"{served.url}/v1/classify", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            assert len(json.load(reply)["outputs"]) == 2
