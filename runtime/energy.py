"""Energy of this machine while something runs, always with how it is known. The only user of CodeCarbon."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from contract.machine import EnergyProvenance

_JOULES_PER_KWH = 3.6e6
_SAMPLE_S = 1.0


@dataclass(frozen=True)
class EnergyReading:
    """Energy since a meter's start. None is unknown; it is never reported as 0.

    Attributes:
        joules: fully loaded: processor, memory and graphics processors, idle time included.
        dynamic_joules: what being busy added: the part that less work would save.
        cpu_seconds: CPU time of the machine (in a container: of the container) that was not idle.
        wall_s: seconds since the start.
        provenance: how the energy is known.
    """

    joules: float | None
    dynamic_joules: float | None
    cpu_seconds: float
    wall_s: float
    provenance: EnergyProvenance

    @property
    def dynamic_joules_per_cpu_second(self) -> float | None:
        """What one CPU-second of work costs, for attribution to those who used it."""
        if self.dynamic_joules is None or self.cpu_seconds <= 0:
            return None
        return self.dynamic_joules / self.cpu_seconds

    def since(self, earlier: EnergyReading) -> EnergyReading:
        """Return what came after an earlier reading of the same meter; unknown where either is."""

        def less(later: float | None, before: float | None) -> float | None:
            return None if later is None or before is None else max(later - before, 0.0)

        return EnergyReading(
            joules=less(self.joules, earlier.joules),
            dynamic_joules=less(self.dynamic_joules, earlier.dynamic_joules),
            cpu_seconds=max(self.cpu_seconds - earlier.cpu_seconds, 0.0),
            wall_s=self.wall_s - earlier.wall_s,
            provenance=self.provenance,
        )


class EnergyMeter:
    """Meters the whole machine from `start` to `stop`; may be read while it runs.

    - `user-constant`: `watts_per_core` is given: a busy CPU-second costs that many joules, and the machine
      draws `idle_watts` at all times.
    - `measured-rapl`: the processor's own counters, through CodeCarbon. Dynamic is what exceeds
      `idle_watts`; where that is not given, dynamic includes the idle draw of the package.
    - `estimated-load`: no counters (most cloud machines): CodeCarbon's model from the processor's rated
      power and load. Memory is a constant in it and outweighs a small processor by far, so fully loaded
      figures mostly follow time. Dynamic is rated power / logical cores x busy CPU-seconds, linear in
      load as in CodeCarbon's process mode, since its machine mode (cubic in load) gives a CPU-second
      another price at each load.
    - `none`: nothing worked; a warning says so once, and energy is None.

    Nothing is written to disk or sent anywhere. The first start of a process takes about two seconds.

    Args:
        watts_per_core: the user's constant, if there is one.
        idle_watts: what the machine draws when idle, if known.
    """

    def __init__(self, *, watts_per_core: float | None = None, idle_watts: float | None = None) -> None:
        self._watts_per_core = watts_per_core
        self._idle_watts = idle_watts or 0.0
        self._tracker: Any = None
        self._sink: Any = None
        self._rated_watts: float | None = None
        self._started_s = 0.0
        self._cpu_at_start = 0.0
        self._final: EnergyReading | None = None
        self.provenance: EnergyProvenance = "none" if watts_per_core is None else "user-constant"

    def start(self) -> Self:
        """Start metering and return the meter."""
        if self._watts_per_core is None:
            self._start_tracker()
        self._final = None
        self._started_s = time.perf_counter()
        self._cpu_at_start = busy_cpu_seconds()
        return self

    def read(self) -> EnergyReading:
        """Return the energy since the start; CodeCarbon's part may be a second old."""
        if self._final is not None:
            return self._final
        wall = time.perf_counter() - self._started_s
        cpu = max(busy_cpu_seconds() - self._cpu_at_start, 0.0)
        joules, dynamic = self._energy(wall, cpu)
        return EnergyReading(joules, dynamic, cpu, wall, self.provenance)

    def joules(self) -> float | None:
        """Return the fully loaded energy since the start, in joules; None where it is unknown."""
        return self.read().joules

    def stop(self) -> EnergyReading:
        """Stop metering and return the last reading. A second stop returns the same."""
        if self._final is None:
            if self._tracker is not None:
                with _Quiet():
                    self._tracker.stop()
            self._final = self.read()
            self._tracker = None
        return self._final

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _energy(self, wall: float, cpu: float) -> tuple[float | None, float | None]:
        if self._watts_per_core is not None:
            dynamic = self._watts_per_core * cpu
            return dynamic + self._idle_watts * wall, dynamic
        if self._sink is None or self._sink.data is None:
            return None, None
        processor, memory, graphics = (
            float(kwh) * _JOULES_PER_KWH
            for kwh in (self._sink.data.cpu_energy, self._sink.data.ram_energy, self._sink.data.gpu_energy)
        )
        if self.provenance == "measured-rapl":
            busy = max(processor - self._idle_watts * wall, 0.0)
        elif self._rated_watts is not None:
            busy = self._rated_watts / (os.cpu_count() or 1) * cpu
        else:
            return processor + memory + graphics, None
        # The cubic model can fall below the linear one; what is paid in all is never less than a part.
        return max(processor, busy) + memory + graphics, busy + graphics

    def _start_tracker(self) -> None:
        problem: object = "its tracker did not start"
        try:
            with _Quiet(), _some_home():
                self._tracker, self._sink, measured, self._rated_watts = _new_tracker()
        except Exception as error:  # noqa: BLE001 (a meter that fails must not stop what it meters)
            problem = error
        if self._sink is None or self._sink.data is None:
            self._tracker = self._sink = None
            self.provenance = "none"
            warnings.warn(
                f"energy is not known here: CodeCarbon failed ({problem}); `sluice serve` and `sluice "
                "compress` take --watts-per-core N instead: joules for a busy CPU-second",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        self.provenance = "measured-rapl" if measured else "estimated-load"


def _new_tracker() -> tuple[Any, Any, bool, float | None]:
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.core import cpu
    from codecarbon.output_methods.base_output import BaseOutput

    class Sink(BaseOutput):  # type: ignore[misc]
        """Keeps the newest totals in memory."""

        data: Any = None

        def out(self, total: Any, delta: Any) -> None:  # noqa: ARG002
            self.data = total

        def live_out(self, total: Any, delta: Any) -> None:  # noqa: ARG002
            self.data = total

    measured = bool(cpu.is_rapl_available())
    rated = None if measured else cpu.TDP().tdp
    sink = Sink()
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA",  # demanded, though it does not enter the energy
        tracking_mode="machine",
        measure_power_secs=_SAMPLE_S,
        api_call_interval=1,
        output_methods=[],
        output_handlers=[sink],
        allow_multiple_runs=True,
        log_level="critical",
    )
    # Constructor and start swallow their exceptions: only a first total proves that both worked.
    tracker.start()
    tracker.flush()
    return tracker, sink, measured, None if rated is None else float(rated)


@contextmanager
def _some_home() -> Iterator[None]:
    """Lend this process a home folder where it has none.

    CodeCarbon looks there for its settings and fails where a user id has neither HOME nor an entry in
    /etc/passwd, as in containers that run under any id.
    """
    try:
        Path.home()
        lent = False
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
        lent = True
    try:
        yield
    finally:
        if lent:
            del os.environ["HOME"]


def busy_cpu_seconds(root: Path = Path("/")) -> float:
    """Return the CPU time, in seconds, that was not idle: of the container, if any, else of all cores.

    Args:
        root: where /proc and /sys are found.
    """
    # In a container /proc/stat is the host's and the top of the control groups its own; on a host both agree.
    try:
        if (root / "proc/self/cgroup").read_text().strip() == "0::/":
            usage = (root / "sys/fs/cgroup/cpu.stat").read_text().split()
            return int(usage[usage.index("usage_usec") + 1]) / 1e6
    except (OSError, ValueError):
        pass
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Guest time is counted in user time too, and stolen time was another machine's.
    ignored = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0) + getattr(times, "steal", 0.0)
    return float(sum(times) - idle - ignored)


class _Quiet:
    """Silences CodeCarbon's logger for good, and the warnings of what it imports for a moment."""

    _lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("codecarbon").disabled = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._caught.__exit__(kind, problem, trace)
        self._lock.release()
