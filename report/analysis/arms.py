"""The comparison of arms: the same traffic sent to each, at one equal rate and at its own capacity.

Every figure is a value, an interval and how the interval was made; one without an interval says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contract.errors import RunError
from contract.formulas import Interval
from contract.run import Summary, read_requests, read_summary
from report.analysis.estimates import (
    CONFIDENCE,
    DRAWS,
    FEWEST_BLOCKS,
    LONGEST_BLOCK_S,
    Figure,
    accuracy_figure,
    answered,
    blocks_of,
    column,
    drop_figure,
    in_blocks,
    latency_figure,
    over_runs,
    percentiles,
)

EQUAL_KEYS = ("energy_wh_per_1k", "energy_dynamic_wh_per_1k", "gco2e_per_1k", "escalation_rate")


@dataclass(frozen=True)
class Searched:
    """What the search for an arm's capacity found.

    Attributes:
        rate_per_s: the highest rate held; None when none was.
        limited_by: what ended the search: `server`, `generator` or `search` (its own bounds).
        confirmed: whether the rate held in longer runs too.
        interval_per_s: from the goodput at the highest rate held to the lowest rate not held.
    """

    rate_per_s: float | None
    limited_by: str
    confirmed: bool
    interval_per_s: Interval | None

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Arm:
    """One way to answer: its name for people, the model that was asked, its run folders, and its search."""

    name: str
    model: str
    equal: tuple[Path, ...]
    capacity: tuple[Path, ...] = ()
    search: Searched | None = None


def compare(arms: Sequence[Arm], *, seed: int = 0) -> dict[str, Any]:
    """Return the figures of every arm, the first being the one that the others are compared with.

    Keys: `equal_rate_per_s`, `slo_ms`, `energy_provenance`, `machine`, and `arms`: a list of {name, model,
    equal: {n, runs, valid, p50_ms, p99_ms, accuracy, accuracy_drop, energy_wh_per_1k, gco2e_per_1k,
    escalation_rate}, capacity: {n, runs, valid, goodput_per_s, usd_per_1k, p99_ms} or null}, each figure as
    {value, interval, method, bound}, and `search`: {rate_per_s, limited_by, confirmed, interval_per_s} or
    null. A capacity that the server did not limit is a lower bound: goodput has the bound "at least", price
    "at most", and neither an interval.

    Raises:
        RunError: for a missing or broken run folder, or an arm without a run at the equal rate.
    """
    if not arms or any(not arm.equal for arm in arms):
        raise RunError("every arm needs at least one run at the equal rate")
    first = [read_summary(path) for path in arms[0].equal]
    baseline = _requests(arms[0].equal)
    return {
        "equal_rate_per_s": first[0].rate_asked_per_s,
        "slo_ms": first[0].slo_ms,
        "energy_provenance": first[0].energy_provenance,
        "machine": None if first[0].machine is None else first[0].machine.model_dump(mode="json"),
        "confidence": CONFIDENCE,
        "arms": [
            {
                "name": arm.name,
                "model": arm.model,
                "equal": _equal(arm, None if index == 0 else baseline, seed),
                "capacity": _capacity(arm, seed) if arm.capacity else None,
                "search": None if arm.search is None else arm.search.dump(),
            }
            for index, arm in enumerate(arms)
        ],
    }


def _equal(arm: Arm, baseline: list[pa.Table] | None, seed: int) -> dict[str, Any]:
    summaries = [read_summary(path) for path in arm.equal]
    tables = _requests(arm.equal)
    found: dict[str, Any] = _counts(summaries)
    found["p50_ms"] = latency_figure(tables, 0.5, seed).dump()
    found["p99_ms"] = latency_figure(tables, 0.99, seed).dump()
    found["accuracy"] = accuracy_figure(tables).dump()
    found["accuracy_drop"] = None if baseline is None else drop_figure(baseline, tables).dump()
    for key in EQUAL_KEYS:
        found[key] = over_runs(summaries, key).dump()
    return found


def _capacity(arm: Arm, seed: int) -> dict[str, Any]:
    summaries = [read_summary(path) for path in arm.capacity]
    tables = _requests(arm.capacity)
    goodput = _goodput(summaries, tables, seed, arm.search)
    found: dict[str, Any] = _counts(summaries)
    found["goodput_per_s"] = goodput.dump()
    found["usd_per_1k"] = _price(summaries, goodput).dump()
    found["p99_ms"] = latency_figure(tables, 0.99, seed).dump()
    found["energy_wh_per_1k"] = over_runs(summaries, "energy_wh_per_1k").dump()
    return found


def _counts(summaries: list[Summary]) -> dict[str, Any]:
    return {
        "runs": len(summaries),
        "n": sum(s.n for s in summaries),
        "errors": sum(s.errors for s in summaries),
        "valid": all(s.valid for s in summaries),
        "void_reasons": [s.void_reason for s in summaries if s.void_reason],
        "rate_asked_per_s": float(np.mean([s.rate_asked_per_s for s in summaries])),
        "rate_held_per_s": float(np.mean([s.rate_held_per_s for s in summaries])),
    }


def _requests(folders: Sequence[Path]) -> list[pa.Table]:
    return [read_requests(folder) for folder in folders]


def _goodput(summaries: list[Summary], tables: list[pa.Table], seed: int, search: Searched | None) -> Figure:
    """Return goodput at capacity, as wide as the runs or the steps of the search leave it uncertain."""
    figure = _goodput_of_runs(summaries, tables, seed)
    if search is None or figure.value is None:
        return figure
    if search.limited_by != "server":
        why = "the generator was the limit" if search.limited_by == "generator" else "the search ended"
        return Figure(figure.value, None, f"no interval: {why}", "at least")
    if search.interval_per_s is None:
        return figure
    own = figure.interval or (figure.value, figure.value)
    low, high = min(own[0], *search.interval_per_s), max(own[1], *search.interval_per_s)
    wider = figure.interval is not None and (low, high) != tuple(search.interval_per_s)
    method = "highest rate held to lowest not held" + (f", or {figure.method}" if wider else "")
    return Figure(figure.value, (low, high), method)


def _goodput_of_runs(summaries: list[Summary], tables: list[pa.Table], seed: int) -> Figure:
    figure = over_runs(summaries, "goodput_per_s")
    if figure.interval is not None or figure.value is None:
        return figure
    counts: list[float] = []
    length = LONGEST_BLOCK_S
    for summary, table in zip(summaries, tables, strict=True):
        late = column(table, "latency_ms").astype(float) > (summary.slo_ms or np.inf)
        good = answered(table) & ~late
        of, length = blocks_of(table)
        counts += [float((good & (of == index)).sum()) / length for index in range(int(of.max()))]
    if len(counts) < FEWEST_BLOCKS:
        return figure
    rng = np.random.default_rng(seed)
    means = [float(np.mean(rng.choice(counts, len(counts)))) for _ in range(DRAWS)]
    low, high = percentiles(means)
    middle = float(np.mean(counts)) or 1.0
    interval = figure.value * min(low / middle, 1.0), figure.value * max(high / middle, 1.0)
    return Figure(figure.value, interval, in_blocks(len(counts), length))


def _price(summaries: list[Summary], goodput: Figure) -> Figure:
    """Return the price at capacity; its interval is that of goodput, turned over."""
    figure = over_runs(summaries, "usd_per_1k")
    if figure.value is not None and goodput.bound:
        return Figure(figure.value, None, goodput.method, "at most")
    if figure.value is None or goodput.interval is None or not goodput.value:
        return figure
    low, high = goodput.interval
    interval = (figure.value * goodput.value / high, figure.value * goodput.value / max(low, 1e-9))
    return Figure(figure.value, interval, "as goodput")
