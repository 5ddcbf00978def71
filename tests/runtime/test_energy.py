"""The energy meter."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from runtime import energy
from runtime.energy import EnergyMeter, EnergyReading, busy_cpu_seconds


def burn(cpu_seconds: float) -> None:
    """Use some CPU time."""
    end = time.process_time() + cpu_seconds
    while time.process_time() < end:
        pass


def test_a_user_constant_prices_cpu_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamic is watts x busy seconds; idle watts come on top in the fully loaded figure."""
    busy, now = iter([100.0, 103.0]), iter([10.0, 20.0])
    monkeypatch.setattr(energy, "busy_cpu_seconds", lambda: next(busy))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = EnergyMeter(watts_per_core=5.0, idle_watts=2.0).start()
    reading = meter.stop()
    assert reading.dynamic_joules == 15.0
    assert reading.joules == 35.0
    assert reading.dynamic_joules_per_cpu_second == 5.0
    assert reading.provenance == "user-constant"
    assert meter.stop() is reading
    assert meter.joules() == 35.0


def test_metering_is_quiet_and_stays_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """CodeCarbon gives a figure without a word, a file or a connection."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    with EnergyMeter() as meter:
        burn(0.2)
        assert meter.read().cpu_seconds > 0
    reading = meter.stop()
    assert reading.provenance in {"measured-rapl", "estimated-load"}
    assert reading.joules is not None
    assert reading.dynamic_joules is not None
    assert reading.dynamic_joules > 0
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_an_id_without_a_home_is_metered_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CodeCarbon works where neither HOME nor /etc/passwd names a home folder, and the environment stays."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with EnergyMeter() as meter:
        assert meter.provenance in {"measured-rapl", "estimated-load"}
    assert "HOME" not in os.environ


def test_a_home_that_is_there_survives_a_failing_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a home that was lent is taken back, and what failed is what is told."""

    def fail() -> None:
        raise RuntimeError("no sensors")

    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setattr(energy, "_new_tracker", fail)
    with pytest.warns(RuntimeWarning, match="no sensors"):
        EnergyMeter().start()
    assert os.environ["HOME"] == "/somewhere"


def test_a_failing_tracker_gives_none_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Energy that cannot be known is None, never 0."""

    def fail() -> None:
        raise OSError("no counters")

    monkeypatch.setattr(energy, "_new_tracker", fail)
    with pytest.warns(RuntimeWarning, match="no counters") as told:
        meter = EnergyMeter().start()
    assert "sluice serve" in str(told[0].message)
    reading = meter.stop()
    assert (reading.joules, reading.dynamic_joules, reading.provenance) == (None, None, "none")
    assert reading.dynamic_joules_per_cpu_second is None


def test_a_tracker_that_swallowed_its_failure_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """CodeCarbon hides the errors of its start; a start that failed is found out all the same."""

    def fail(tracker: object) -> None:
        raise OSError("no counters")

    monkeypatch.setattr("codecarbon.OfflineEmissionsTracker._ensure_hardware_ready", fail)
    with pytest.warns(RuntimeWarning, match="not known here"):
        meter = EnergyMeter().start()
    assert meter.stop().provenance == "none"


def test_busy_time_grows_with_work() -> None:
    """The machine's busy CPU time counts ours."""
    before = busy_cpu_seconds()
    burn(0.2)
    assert busy_cpu_seconds() > before


def test_a_container_counts_its_own_time(tmp_path: Path) -> None:
    """With a control-group namespace the container's usage is read, not the host's."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    assert busy_cpu_seconds(tmp_path) > 0
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\n")
    assert busy_cpu_seconds(tmp_path) == 2.5


def test_a_reading_since_another_is_their_difference() -> None:
    """Energy and time between two readings are subtracted; what either does not know stays unknown."""
    early = EnergyReading(10.0, 4.0, 2.0, 5.0, "estimated-load")
    late = EnergyReading(30.0, 10.0, 5.0, 9.0, "estimated-load")
    assert late.since(early) == EnergyReading(20.0, 6.0, 3.0, 4.0, "estimated-load")
    assert late.since(early).dynamic_joules_per_cpu_second == 2.0
    unknown = EnergyReading(None, None, 5.0, 9.0, "none")
    assert unknown.since(early).joules is None
    assert late.since(unknown).dynamic_joules is None
