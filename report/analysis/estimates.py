"""Figures drawn from the rows of several runs: each a value, an interval, and how the interval was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy
from numpy.typing import NDArray

from contract.formulas import (
    Interval,
    exact_quantile,
    paired_difference_interval,
    quantile_interval,
    wilson_interval,
)
from contract.run import Summary, abstained

LONGEST_BLOCK_S = 1.0
SHORTEST_BLOCK_S = 0.1
FEWEST_BLOCKS = 8
BLOCKS_PER_RUN = 12
DRAWS = 1000
CONFIDENCE = 0.95
OWN_INTERVALS = {"goodput_per_s": "goodput_interval_per_s"}


@dataclass(frozen=True)
class Figure:
    """A value, its interval, and how the interval was made; `bound` where the value is only a bound."""

    value: float | None
    interval: Interval | None
    method: str
    bound: Literal["at least", "at most"] | None = None

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "value": self.value, "interval": self.interval, "method": self.method, "bound": self.bound,
        }  # fmt: skip


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
    half = float(scipy.special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * float(np.std(values, ddof=1)) / n**0.5
    mean = float(np.mean(values))
    return max(0.0, mean - half), mean + half


def column(table: pa.Table, name: str) -> NDArray[Any]:
    """Return one column [N] of a run's requests as a numpy array; null numbers become NaN."""
    found: NDArray[Any] = table[name].to_numpy(zero_copy_only=False)
    return found


def answered(table: pa.Table) -> NDArray[np.bool_]:
    """Return [N] whether each request got a 2xx answer."""
    status = column(table, "status").astype(float)
    return np.asarray((status >= 200) & (status < 300))


def blocks_of(table: pa.Table) -> tuple[NDArray[np.int64], float]:
    """Return [N] the block of each arrival, and the length of a block: a twelfth of the run, 1 s at most."""
    start = column(table, "intended_at_s").astype(float)
    length = float(np.clip(np.ptp(start) / BLOCKS_PER_RUN, SHORTEST_BLOCK_S, LONGEST_BLOCK_S))
    return np.asarray((start - start.min()) // length, dtype=np.int64), length


def latency_figure(tables: list[pa.Table], q: float, seed: int) -> Figure:
    """Return the latency quantile of the answers of all runs together.

    Its interval is that of order statistics, or where it reaches further, of blocks of arrivals drawn again
    (Künsch 1989), since queueing correlates neighbours. None where the answers are too few for the first
    (368 for p99).
    """
    blocks: list[NDArray[np.float64]] = []
    length = LONGEST_BLOCK_S
    for table in tables:
        ok, (of, length) = answered(table), blocks_of(table)
        latency = column(table, "latency_ms").astype(float)
        blocks += [latency[ok & (of == index)] for index in np.unique(of)]
    pooled = np.concatenate(blocks) if blocks else np.empty(0)
    if not pooled.size:
        return Figure(None, None, "no answers")
    value, by_rank = exact_quantile(pooled, q), quantile_interval(pooled, q, CONFIDENCE)
    if by_rank is None:
        return Figure(value, None, f"no interval: {pooled.size:,} answers are too few")
    ranked = f"order statistics, {pooled.size:,} answers"
    if len(blocks) < FEWEST_BLOCKS:
        return Figure(value, by_rank, ranked)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        sample = np.concatenate([blocks[i] for i in rng.integers(0, len(blocks), len(blocks))])
        if sample.size:
            draws.append(exact_quantile(sample, q))
    low, high = percentiles(draws)
    interval = min(low, by_rank[0]), max(high, by_rank[1])
    return Figure(value, interval, f"{ranked}, or {in_blocks(len(blocks), length)}")


def in_blocks(blocks: int, length_s: float) -> str:
    """Return the words for a bootstrap over so many blocks."""
    return f"block bootstrap, {blocks} x {length_s:.2g} s"


def accuracy_figure(tables: list[pa.Table]) -> Figure:
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
    """Return [N] 1 where the answer is the label, 0 where not, NaN without label or where nobody answers."""
    label, answer = column(table, "label"), column(table, "answer")
    known = answered(table) & ~abstained(table) & np.array([v is not None for v in label], dtype=bool)
    return np.where(known, (label == answer).astype(float), np.nan)


def _rows(table: pa.Table) -> NDArray[np.int64]:
    """Return [N] the data row that was asked, -1 where the run does not say."""
    if "row" not in table.column_names:
        return np.full(table.num_rows, -1, dtype=np.int64)
    return np.asarray(pc.fill_null(table["row"], -1).to_numpy(), dtype=np.int64)


def drop_figure(baseline: list[pa.Table], tables: list[pa.Table]) -> Figure:
    """Return baseline accuracy less this arm's, paired by text where both arms were asked the same texts."""
    first, other = _by_row(baseline), _by_row(tables)
    shared = sorted(first.keys() & other.keys())
    if not shared:
        mine, theirs = accuracy_figure(baseline).value, accuracy_figure(tables).value
        value = None if mine is None or theirs is None else mine - theirs
        return Figure(value, None, "no interval: the runs do not say which texts were asked")
    before = np.array([first[row] for row in shared])
    after = np.array([other[row] for row in shared])
    both = float(np.minimum(before, after).sum())
    first_only, other_only = float(before.sum()) - both, float(after.sum()) - both
    neither = len(shared) - both - first_only - other_only
    interval = paired_difference_interval(both, first_only, other_only, max(0.0, neither), CONFIDENCE)
    return Figure(float((before - after).mean()), interval, f"Newcombe's paired, {len(shared):,} texts")


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


def percentiles(draws: Sequence[float]) -> Interval:
    """Return the interval that holds CONFIDENCE of the draws."""
    tail = 100 * (1 - CONFIDENCE) / 2
    return float(np.percentile(draws, tail)), float(np.percentile(draws, 100 - tail))
