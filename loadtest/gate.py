"""Whether a newer run is worse than an older one, beyond what chance explains.

Meant for one job that runs base and head side by side, below the knee: at saturation p99 swings twofold from
run to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import RunError
from contract.formulas import Interval, exact_quantile, wilson_interval
from contract.run import SUMMARY, Summary, read_requests, read_summary
from loadtest.estimates import (
    CONFIDENCE,
    DRAWS,
    accuracy_difference,
    answers_of,
    block_bootstrap,
    blocks_of,
)
from loadtest.history import COMPARABLE
from loadtest.waits import timed

MIN_FOR_P99 = 368

Verdict = Literal["passed", "worse", "unsure"]


@dataclass(frozen=True)
class Check:
    """One figure compared.

    Attributes:
        change: head against base: a ratio less 1 for latency, a difference for accuracy and errors.
        interval: of the change.
        limit: how much worse is allowed, in the same unit.
        verdict: worse when even the better end of the interval is beyond the limit; unsure when the
            samples are too few for an interval.
    """

    name: str
    base: float | None
    head: float | None
    change: float | None
    interval: Interval | None
    limit: float
    verdict: Verdict
    method: str

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class GateResult:
    """All checks; worse when one is."""

    base: str
    head: str
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict."""
        found = {check.verdict for check in self.checks}
        return "worse" if "worse" in found else "unsure" if "unsure" in found else "passed"

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "verdict": self.verdict, "base": self.base, "head": self.head,
            "checks": [check.dump() for check in self.checks],
        }  # fmt: skip


@dataclass(frozen=True)
class _Side:
    summaries: tuple[Summary, ...]
    tables: tuple[pa.Table, ...]


def compare_runs(
    base: Path,
    head: Path,
    *,
    max_p99_increase: float = 0.1,
    max_accuracy_drop: float = 0.0,
    max_error_increase: float = 0.001,
    seed: int = 0,
) -> GateResult:
    """Compare two runs, or two folders of repeated runs.

    Args:
        base, head: a run folder, or a folder whose sub-folders are runs made the same way.
        max_p99_increase: allowed increase of p99 as a fraction of base's.
        max_accuracy_drop: allowed drop of accuracy, a fraction (0.01 = one point).
        max_error_increase: allowed increase of the share of failed requests.

    Raises:
        RunError: a run is missing or void, or the two were not asked for the same thing.
    """
    old, new = _read(base), _read(head)
    _check_comparable(old.summaries[0], new.summaries[0], head)
    return GateResult(
        str(base),
        str(head),
        (
            _p99(old, new, max_p99_increase, seed),
            _accuracy(old, new, max_accuracy_drop, seed),
            _errors(old, new, max_error_increase),
        ),
    )


def _read(folder: Path) -> _Side:
    runs = [folder] if (folder / SUMMARY).exists() else sorted(p.parent for p in folder.glob(f"*/{SUMMARY}"))
    if not runs:
        raise RunError(
            "neither a run nor a folder of runs", where=folder, hint="sluice loadtest ... --out DIR"
        )
    summaries = tuple(read_summary(run) for run in runs)
    for run, summary in zip(runs, summaries, strict=True):
        if not summary.valid:
            raise RunError(f"the run is void: {summary.void_reason}", where=run, hint="run it again")
        _check_comparable(summaries[0], summary, run)
    return _Side(summaries, tuple(read_requests(run) for run in runs))


def _check_comparable(first: Summary, second: Summary, where: Path) -> None:
    for name in COMPARABLE:
        a, b = getattr(first, name), getattr(second, name)
        if a != b:
            raise RunError(f"not comparable: {name} is {b!r} here and {a!r} in the other run", where=where)


def _latencies(side: _Side) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return the latencies in ms, and the same in blocks of one second."""
    found = []
    for table in side.tables:
        kept = table.filter(pa.array(timed(table)))
        found.append((kept["intended_at_s"].to_numpy(), kept["latency_ms"].to_numpy()))
    return np.concatenate([x for _, x in found]), [block for at, x in found for block in blocks_of(at, x)]


def _p99(old: _Side, new: _Side, limit: float, seed: int) -> Check:
    (x, x_blocks), (y, y_blocks) = _latencies(old), _latencies(new)
    before = exact_quantile(x, 0.99) if x.size else None
    after = exact_quantile(y, 0.99) if y.size else None
    if before is None or after is None or min(x.size, y.size) < MIN_FOR_P99:
        change = after / before - 1 if before and after else None
        method = f"no interval: p99 takes {MIN_FOR_P99} requests, here {x.size} and {y.size}"
        return Check("p99_ms", before, after, change, None, limit, "unsure", method)

    def p99(values: NDArray[np.float64]) -> float:
        return exact_quantile(values, 0.99)

    ratios = block_bootstrap(y_blocks, p99, seed=seed + 1) / block_bootstrap(x_blocks, p99, seed=seed) - 1
    tail = (1 - CONFIDENCE) / 2
    interval = float(np.quantile(ratios, tail)), float(np.quantile(ratios, 1 - tail))
    return Check(
        "p99_ms", before, after, after / before - 1, interval, limit,
        "worse" if interval[0] > limit else "passed",
        f"block bootstrap 95% of the ratio, one-second blocks ({len(x_blocks)} and {len(y_blocks)}), "
        f"{DRAWS} draws",
    )  # fmt: skip


def _accuracy(old: _Side, new: _Side, limit: float, seed: int) -> Check:
    before, after = (
        answers_of(*(_joined(side, name) for name in ("label", "answer", "row"))) for side in (old, new)
    )
    gap = accuracy_difference(after, before, seed=seed)
    p, q = (float(np.mean(a.label == a.answer)) if len(a) else None for a in (before, after))
    if gap is None:
        verdict: Verdict = "unsure" if len(before) or len(after) else "passed"
        method = "no labelled text was answered in both runs"
        return Check("accuracy", p, q, None, None, limit, verdict, method)
    verdict = "worse" if gap.interval is not None and gap.interval[1] < -limit else "passed"
    return Check("accuracy", p, q, gap.value, gap.interval, limit, verdict, gap.method)


def _joined(side: _Side, column: str) -> list[Any]:
    return [value for table in side.tables for value in table[column].to_pylist()]


def _errors(old: _Side, new: _Side, limit: float) -> Check:
    """Compare shares of failed requests by Newcombe's hybrid score interval (1998, method 10)."""
    x, y = (sum(s.errors for s in side.summaries) for side in (old, new))
    n, m = (sum(s.n for s in side.summaries) for side in (old, new))
    p, q = x / n, y / m
    (p_low, p_high), (q_low, q_high) = wilson_interval(x, n, CONFIDENCE), wilson_interval(y, m, CONFIDENCE)
    gap = q - p
    interval = (
        gap - float(np.hypot(q - q_low, p_high - p)),
        gap + float(np.hypot(q_high - q, p - p_low)),
    )
    return Check(
        "errors", p, q, gap, interval, limit, "worse" if interval[0] > limit else "passed",
        "Newcombe 95% of the difference of two shares",
    )  # fmt: skip
