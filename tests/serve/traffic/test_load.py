"""Whether there is processor time to spare."""

from __future__ import annotations

import time
from pathlib import Path

from serve.traffic.load import CpuLoad


def test_load_is_looked_at_a_few_times_a_second() -> None:
    """Between looks the last figure stands; without a limit nothing is ever too busy."""
    now = 0.0
    load = CpuLoad(1e-9, lambda: now)
    assert not load()
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    assert not load()
    now = 1.0
    assert load()
    assert not CpuLoad(None)()


def test_the_thread_that_asks_is_busy_though_the_machine_is_not() -> None:
    """An event loop has one core, whatever the machine has."""
    now = 0.0
    load = CpuLoad(0.5, lambda: now)
    load._meters[1] = (lambda: 0.0, 1.0)
    load._used[1] = 0.0
    used = time.thread_time()
    while time.thread_time() < used + 0.14:
        pass
    now = 0.26
    assert load()


def test_a_containers_quota_is_what_there_is(tmp_path: Path) -> None:
    """Half a core of quota that is used up is busy, on however large a machine."""
    group = tmp_path / "sys/fs/cgroup/box"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box\n")
    (group / "cpu.max").write_text("50000 100000\n")
    (group / "cpu.stat").write_text("usage_usec 1000000\nuser_usec 0\n")
    now = 0.0
    load = CpuLoad(0.85, lambda: now, tmp_path)
    load._meters[1] = (lambda: 0.0, 1.0)
    load._used[1] = 0.0
    now = 10.0
    (group / "cpu.stat").write_text("usage_usec 4000000\nuser_usec 0\n")
    assert not load()
    now = 20.0
    (group / "cpu.stat").write_text("usage_usec 9000000\nuser_usec 0\n")
    assert load()
