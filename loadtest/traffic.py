"""The shape of traffic: a process of arrivals over a profile of rates, or a recorded trace."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.errors import DataError, InputError
from tables.columnar import PARQUET

Process = Literal["poisson", "uniform", "gamma"]
PROCESSES: tuple[Process, ...] = get_args(Process)
TIMES = ("at", "at_s", "intended_at_s", "timestamp", "time")
_MOST_CV = 100.0
_BEFORE_THE_END = 1 - 1e-12


@dataclass(frozen=True)
class Traffic:
    """How arrivals are spread over a run.

    Attributes:
        process: of the gaps between arrivals.
        cv: coefficient of variation of gamma gaps: 1 is Poisson, 3 comes in bursts, 0.3 is nearly even.
        segments: rates at the begin and the end of stretches of equal length, linear between; only their
            ratios count. Empty: one rate all the time.
        trace: seconds from the start of each arrival, sorted; then nothing else counts.
        name: of the trace, for the record.
    """

    process: Process = "poisson"
    cv: float = 1.0
    segments: tuple[tuple[float, float], ...] = ()
    trace: tuple[float, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise InputError(f"unknown arrivals {self.process!r}", hint=f"one of: {', '.join(PROCESSES)}")
        if not 0 < self.cv <= _MOST_CV:
            raise InputError(f"the variation of gaps must be in (0, {_MOST_CV:g}], not {self.cv}")
        rates = [rate for pair in self.segments for rate in pair]
        if not all(0 <= rate < math.inf for rate in rates) or (rates and not any(rates)):
            raise InputError(f"rates must be finite, not negative and not all 0: {rates}")

    @property
    def words(self) -> str:
        """The shape in words, as runs record it."""
        if self.trace:
            return f"trace {self.name}"
        process = f"gamma, cv {self.cv:g}" if self.process == "gamma" else self.process
        if not self.segments:
            return process
        ends = [f"{a:g}" if a == b else f"{a:g} to {b:g}" for a, b in self.segments]
        return f"{process}, {', then '.join(ends)} per second"

    @property
    def mean_rate(self) -> float:
        """Arrivals per second on average, where segments tell."""
        return sum(map(sum, self.segments)) / (2 * len(self.segments))

    def start_rate(self, mean: float) -> float:
        """Return arrivals per second at the begin of a run of `mean` per second."""
        first = self.segments[0] if self.segments else None
        if first is None or not self.mean_rate:
            return mean
        return mean * (first[0] or sum(first) / 2 or self.mean_rate) / self.mean_rate

    def times_s(self, n: int, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return N sorted arrival times [N] in [0, duration).

        Given their count, arrivals divide the run by N + 1 gaps of the process, scaled to its length: for
        exponential gaps the order statistics of N uniform numbers (Kingman 1993, 2.4), which is a Poisson
        process. A profile bends time by the inverse of its cumulative rate (Lewis and Shedler 1979).
        """
        if self.process == "uniform":
            even: NDArray[np.float64] = np.arange(n, dtype=np.float64) / n
            return self._bent(even) * duration_s
        if self.process == "poisson":
            return self._bent(np.sort(rng.random(n))) * duration_s
        gaps = rng.gamma(1 / self.cv**2, size=n + 1) + np.finfo(np.float64).tiny
        shares: NDArray[np.float64] = np.cumsum(gaps[:n]) / gaps.sum()
        return self._bent(shares) * duration_s

    def _bent(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return when shares [N] of all arrivals have come, in shares of the run."""
        if not self.segments:
            return np.minimum(shares, _BEFORE_THE_END)
        a, b = np.array(self.segments, dtype=np.float64).T
        areas = (a + b) / 2
        until = np.concatenate([[0.0], np.cumsum(areas)])
        wanted = shares * until[-1]
        at = np.clip(np.searchsorted(until, wanted, side="right") - 1, 0, len(a) - 1)
        rest, start, slope = wanted - until[at], a[at], (b - a)[at]
        root = np.sqrt(np.maximum(start**2 + 2 * slope * rest, 0.0))
        # The root of start x + slope x^2 / 2 = rest, in the form that holds for a slope of 0 too.
        within = np.divide(2 * rest, start + root, out=np.zeros_like(rest), where=start + root > 0)
        bent: NDArray[np.float64] = np.sort((at + np.clip(within, 0.0, 1.0)) / len(a))
        return np.minimum(bent, _BEFORE_THE_END)


UNIFORM = Traffic("uniform")


def read_trace(path: Path, *, speed: float = 1.0, most_s: float | None = None) -> Traffic:
    """Return the arrivals that a file records, the first at 0.

    CSV and Parquet: a column `at`, `at_s`, `intended_at_s`, `timestamp` or `time`, in seconds or as ISO 8601,
    such as the `requests.parquet` of a run. JSON lines: `timestamp` in milliseconds, as in traces of AIPerf.

    Args:
        speed: how many times as fast.
        most_s: only so many seconds of the replay.

    Raises:
        DataError: naming file, row and rule.
    """
    if not 0 < speed < math.inf:
        raise InputError(f"the speed of a trace must be positive, not {speed}")
    try:
        seconds = _seconds(path)
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"not a readable trace: {problem}", where=path) from None
    if len(seconds) < 2:
        raise DataError("a trace takes two arrivals or more", where=path)
    at = np.sort(np.array(seconds, dtype=np.float64))
    at = (at - at[0]) / speed
    kept = at if most_s is None else at[at < most_s]
    return Traffic(trace=tuple(kept.tolist()), name=f"{path.name} at {speed:g} times its speed")


def _seconds(path: Path) -> list[float]:
    if path.suffix.lower() in PARQUET:
        names = pq.read_schema(path).names
        column = pq.read_table(path, columns=[_column(names, path)]).column(0).to_pylist()
        return _numbers(column, path, first_row=1)
    if path.suffix in {".jsonl", ".ndjson"}:
        return [1e-3 * x for x in _numbers(_of_lines(path), path, first_row=1)]
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        name = _column(rows.fieldnames or (), path)
        return _numbers([row[name] for row in rows], path, first_row=2)


def _of_lines(path: Path) -> list[Any]:
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line)["timestamp"])
        except (ValueError, LookupError, TypeError):
            raise DataError(f'line {number}: not {{"timestamp": milliseconds, ...}}', where=path) from None
    return found


def _column(names: Sequence[str], path: Path) -> str:
    for name in TIMES:
        if name in names:
            return name
    raise DataError(f"no column of times: one of {', '.join(TIMES)}; it has {', '.join(names)}", where=path)


def _numbers(values: Iterable[Any], path: Path, *, first_row: int) -> list[float]:
    found = []
    for row, value in enumerate(values, start=first_row):
        try:
            seconds = _second(value)
        except (TypeError, ValueError):
            seconds = math.nan
        if not math.isfinite(seconds):
            raise DataError(f"row {row}: {value!r} is no time: seconds, or ISO 8601", where=path)
        found.append(seconds)
    return found


def _second(value: Any) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value)
