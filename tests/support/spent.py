"""What each test costs: wall and CPU seconds of all its phases, told at the end of a run, across workers."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter  # by name: tests may patch the module's

import pytest

SLOWEST = 10
_KEY = "spent"
_MARK = pytest.StashKey[tuple[float, float]]()


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, all threads, and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass
class Cost:
    """Seconds that a test took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


class Spent:
    """Measures every phase of every test, and adds up what the reports of all workers say."""

    def __init__(self) -> None:
        self.out = os.environ.get("SLUICE_TESTS_SPENT")
        self.tests: dict[str, Cost] = defaultdict(Cost)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Start the clocks."""
        item.stash[_MARK] = perf_counter(), cpu_seconds()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send the costs since the last report along with this one."""
        report = yield
        wall, cpu = item.stash[_MARK]
        item.stash[_MARK] = now = perf_counter(), cpu_seconds()
        report.user_properties = [
            *(p for p in report.user_properties if p[0] != _KEY),
            (_KEY, [now[0] - wall, now[1] - cpu]),
        ]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up, in the process that tells the results."""
        for name, value in report.user_properties:
            if name == _KEY and isinstance(value, list):
                cost = self.tests[report.nodeid.rsplit("@", 1)[0]]
                cost.wall_s += value[0]
                cost.cpu_s += value[1]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the slowest tests with their fixtures, and what each folder took."""
        if len(self.tests) <= SLOWEST:
            return
        say = terminalreporter
        say.section(f"{SLOWEST} slowest tests, with the fixtures that they made")
        for name, cost in sorted(self.tests.items(), key=lambda row: -row[1].wall_s)[:SLOWEST]:
            say.write_line(f"{cost.wall_s:7.1f} s {cost.cpu_s:7.1f} s of CPU  {name}")
        folders: dict[str, Cost] = defaultdict(Cost)
        for name, cost in self.tests.items():
            folder = "/".join(name.split("::")[0].split("/")[:2])
            folders[folder].wall_s += cost.wall_s
            folders[folder].cpu_s += cost.cpu_s
        say.section("by folder")
        for name, cost in sorted(folders.items(), key=lambda row: -row[1].cpu_s):
            say.write_line(f"{cost.wall_s:7.1f} s {cost.cpu_s:7.1f} s of CPU  {name}")
        if self.out:
            told = {name: [round(c.wall_s, 3), round(c.cpu_s, 3)] for name, c in self.tests.items()}
            Path(self.out).write_text(json.dumps(told, indent=0))
