"""The comparison of arms: the same traffic sent to each, at one equal rate and at its own capacity.

Every figure is a value, an interval and how the interval was made; one without an interval says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from contract.errors import RunError
from contract.formulas import (
    Interval,
    bootstrap_difference,
    exact_quantile,
    quantile_interval,
    wilson_interval,
)
from contract.run import Summary, read_requests, read_summary

LONGEST_BLOCK_S = 1.0
SHORTEST_BLOCK_S = 0.1
FEWEST_BLOCKS = 8
BLOCKS_PER_RUN = 12
DRAWS = 1000
CONFIDENCE = 0.95
OWN_INTERVALS = {"goodput_per_s": "goodput_interval_per_s"}
EQUAL_KEYS = ("energy_wh_per_1k", "energy_dynamic_wh_per_1k", "gco2e_per_1k", "escalation_rate")


@dataclass(frozen=True)
class Arm:
    """One way to answer: its name for people, the model that was asked, and its run folders."""

    name: str
    model: str
    equal: tuple[Path, ...]
    capacity: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A value, its interval, and how the interval was made."""

    value: float | None
    interval: Interval | None
    method: str

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"value": self.value, "interval": self.interval, "method": self.method}


def compare(arms: Sequence[Arm], *, seed: int = 0) -> dict[str, Any]:
    """Return the figures of every arm, the first being the one that the others are compared with.

    Keys: `equal_rate_per_s`, `slo_ms`, `energy_provenance`, `machine`, and `arms`: a list of {name, model,
    equal: {n, runs, valid, p50_ms, p99_ms, accuracy, accuracy_drop, energy_wh_per_1k, gco2e_per_1k,
    escalation_rate}, capacity: {n, runs, valid, goodput_per_s, usd_per_1k, p99_ms} or null}, each figure as
    {value, interval, method}.

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
            }
            for index, arm in enumerate(arms)
        ],
    }


def _equal(arm: Arm, baseline: list[pa.Table] | None, seed: int) -> dict[str, Any]:
    summaries = [read_summary(path) for path in arm.equal]
    tables = _requests(arm.equal)
    found: dict[str, Any] = _counts(summaries)
    found["p50_ms"] = _latency(tables, 0.5, seed).dump()
    found["p99_ms"] = _latency(tables, 0.99, seed).dump()
    found["accuracy"] = _accuracy(tables).dump()
    found["accuracy_drop"] = None if baseline is None else _drop(baseline, tables, seed).dump()
    for key in EQUAL_KEYS:
        found[key] = over_runs(summaries, key).dump()
    return found


def _capacity(arm: Arm, seed: int) -> dict[str, Any]:
    summaries = [read_summary(path) for path in arm.capacity]
    tables = _requests(arm.capacity)
    goodput = _goodput(summaries, tables, seed)
    found: dict[str, Any] = _counts(summaries)
    found["goodput_per_s"] = goodput.dump()
    found["usd_per_1k"] = _price(summaries, goodput).dump()
    found["p99_ms"] = _latency(tables, 0.99, seed).dump()
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


def over_runs(summaries: Sequence[Summary], key: str) -> Figure:
    """Return the mean of a summary's figure over repeats with Student's t interval (three repeats or more).

    A single run's own interval, where its summary carries one, is used as it is.
    """
    values = [getattr(s, key) for s in summaries]
    known = [float(v) for v in values if v is not None]
    if not known:
        return Figure(None, None, "not measured")
    mean = float(np.mean(known))
    if len(known) >= 3:
        return Figure(mean, _student(known), f"Student's t, {len(known)} runs")
    own = getattr(summaries[0], OWN_INTERVALS.get(key, f"{key}_interval"), None)
    if len(known) == 1 and own is not None:
        return Figure(mean, (float(own[0]), float(own[1])), _clause(summaries[0].interval_method, key))
    return Figure(mean, None, "no interval: one run")


def _clause(methods: str, key: str) -> str:
    """Return what a summary's `interval_method` says of one figure: `goodput: ...; p99: ...`."""
    name = key.partition("_")[0]
    found = [part.partition(":")[2].strip() for part in methods.split(";") if part.strip().startswith(name)]
    return found[0] if found and found[0] else methods


def _student(values: Sequence[float]) -> Interval:
    """Return Student's t interval of the mean; every figure here is 0 or more, and so is the interval."""
    n = len(values)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    mean = float(np.mean(values))
    return max(0.0, mean - half), mean + half


def _requests(folders: Sequence[Path]) -> list[pa.Table]:
    return [read_requests(folder) for folder in folders]


def column(table: pa.Table, name: str) -> NDArray[Any]:
    """Return one column [N] of a run's requests as a numpy array; null numbers become NaN."""
    found: NDArray[Any] = table[name].to_numpy(zero_copy_only=False)
    return found


def answered(table: pa.Table) -> NDArray[np.bool_]:
    """Return [N] whether each request got a 2xx answer."""
    status = column(table, "status").astype(float)
    return np.asarray((status >= 200) & (status < 300))


def _blocks(table: pa.Table) -> tuple[NDArray[np.int64], float]:
    """Return [N] the block of each arrival, and the length of a block: a twelfth of the run, 1 s at most."""
    start = column(table, "intended_at_s").astype(float)
    length = float(np.clip(np.ptp(start) / BLOCKS_PER_RUN, SHORTEST_BLOCK_S, LONGEST_BLOCK_S))
    return np.asarray((start - start.min()) // length, dtype=np.int64), length


def _latency(tables: list[pa.Table], q: float, seed: int) -> Figure:
    """Return the latency quantile of answered requests; with fewer than three runs a block bootstrap.

    Blocks of arrivals are drawn again (Künsch 1989), since queueing correlates neighbours.
    """
    latencies = [column(t, "latency_ms").astype(float)[answered(t)] for t in tables]
    per_run = [exact_quantile(found, q) for found in latencies if found.size]
    if not per_run:
        return Figure(None, None, "no answers")
    if len(per_run) >= 3:
        return Figure(float(np.mean(per_run)), _student(per_run), f"Student's t, {len(per_run)} runs")
    blocks: list[NDArray[np.float64]] = []
    for table in tables:
        ok, (of, length) = answered(table), _blocks(table)
        latency = column(table, "latency_ms").astype(float)
        blocks += [latency[ok & (of == index)] for index in np.unique(of)]
    value = exact_quantile(np.concatenate(blocks), q)
    if quantile_interval(np.concatenate(blocks), q) is None or len(blocks) < FEWEST_BLOCKS:
        return Figure(value, None, "no interval: too few answers")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        sample = np.concatenate([blocks[i] for i in rng.integers(0, len(blocks), len(blocks))])
        if sample.size:
            draws.append(exact_quantile(sample, q))
    low, high = _percentiles(draws)
    return Figure(value, (min(low, value), max(high, value)), _bootstrap(len(blocks), length))


def _bootstrap(blocks: int, length_s: float) -> str:
    return f"block bootstrap, {blocks} x {length_s:.2g} s"


def _goodput(summaries: list[Summary], tables: list[pa.Table], seed: int) -> Figure:
    figure = over_runs(summaries, "goodput_per_s")
    if figure.interval is not None or figure.value is None:
        return figure
    counts: list[float] = []
    length = LONGEST_BLOCK_S
    for summary, table in zip(summaries, tables, strict=True):
        late = column(table, "latency_ms").astype(float) > (summary.slo_ms or np.inf)
        good = answered(table) & ~late
        of, length = _blocks(table)
        counts += [float((good & (of == index)).sum()) / length for index in range(int(of.max()))]
    if len(counts) < FEWEST_BLOCKS:
        return figure
    rng = np.random.default_rng(seed)
    means = [float(np.mean(rng.choice(counts, len(counts)))) for _ in range(DRAWS)]
    low, high = _percentiles(means)
    middle = float(np.mean(counts)) or 1.0
    interval = figure.value * min(low / middle, 1.0), figure.value * max(high / middle, 1.0)
    return Figure(figure.value, interval, _bootstrap(len(counts), length))


def _price(summaries: list[Summary], goodput: Figure) -> Figure:
    """Return the price at capacity; its interval is that of goodput, turned over."""
    figure = over_runs(summaries, "usd_per_1k")
    if figure.interval or figure.value is None or goodput.interval is None or not goodput.value:
        return figure
    low, high = goodput.interval
    interval = (figure.value * goodput.value / high, figure.value * goodput.value / max(low, 1e-9))
    return Figure(figure.value, interval, "as goodput")


def _accuracy(tables: list[pa.Table]) -> Figure:
    """Return accuracy over requests; a text asked many times counts once towards the interval."""
    hits = np.concatenate([_hits(table) for table in tables])
    rows = np.concatenate([_rows(table) for table in tables])
    known = ~np.isnan(hits)
    if not known.any():
        return Figure(None, None, "no labelled answers")
    value = float(hits[known].mean())
    texts = len(np.unique(rows[known])) if (rows[known] >= 0).all() else int(known.sum())
    interval = wilson_interval(round(value * texts), texts, CONFIDENCE)
    return Figure(value, interval, f"Wilson, {texts:,} texts")


def _hits(table: pa.Table) -> NDArray[np.float64]:
    """Return [N] 1 where the answer is the label, 0 where not, NaN where either is missing."""
    label, answer = column(table, "label"), column(table, "answer")
    known = answered(table) & np.array([v is not None for v in label], dtype=bool)
    return np.where(known, (label == answer).astype(float), np.nan)


def _rows(table: pa.Table) -> NDArray[np.int64]:
    """Return [N] the data row that was asked, -1 where the run does not say."""
    if "row" not in table.column_names:
        return np.full(table.num_rows, -1, dtype=np.int64)
    return np.asarray(pc.fill_null(table["row"], -1).to_numpy(), dtype=np.int64)


def _drop(baseline: list[pa.Table], tables: list[pa.Table], seed: int) -> Figure:
    """Return baseline accuracy less this arm's, paired by text where both arms were asked the same texts."""
    first, other = _by_row(baseline), _by_row(tables)
    shared = sorted(first.keys() & other.keys())
    if not shared:
        mine, theirs = _accuracy(baseline).value, _accuracy(tables).value
        value = None if mine is None or theirs is None else mine - theirs
        return Figure(value, None, "no interval: the runs do not say which texts were asked")
    before = np.array([first[row] for row in shared])
    after = np.array([other[row] for row in shared])
    interval = bootstrap_difference(before, after, seed=seed, confidence=CONFIDENCE)
    return Figure(float((before - after).mean()), interval, f"paired bootstrap, {len(shared):,} texts")


def _by_row(tables: list[pa.Table]) -> dict[int, float]:
    """Return data row to the share of its answers that were right."""
    hits = np.concatenate([_hits(table) for table in tables])
    rows = np.concatenate([_rows(table) for table in tables])
    known = ~np.isnan(hits) & (rows >= 0)
    if not known.any():
        return {}
    keys, index = np.unique(rows[known], return_inverse=True)
    means = np.bincount(index, weights=hits[known]) / np.bincount(index)
    return dict(zip(keys.tolist(), means.tolist(), strict=True))


def _percentiles(draws: Sequence[float]) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    return float(np.percentile(draws, tail)), float(np.percentile(draws, 100 - tail))
