"""Latency of all variants of a family beside one another: rounds in which each answers the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.interleaving import time_interleaved
from contract.family import Family
from runtime.api import LoadedVariant
from runtime.load import load_variant

TEXTS_PER_ROUND = 50


@dataclass(frozen=True)
class Timing:
    """Latency of one variant, one text at a time, encoding included.

    Attributes:
        p50_ms, p99_ms: over all calls.
        rounds_ms: [R] median of every round, in which all variants had the same texts and the same machine.
    """

    p50_ms: float
    p99_ms: float
    rounds_ms: NDArray[np.float64]

    def times_as_fast(self, other: Timing) -> float:
        """Return the median over rounds of the other's latency by this one's."""
        return float(np.median(other.rounds_ms / self.rounds_ms))

    def interval(self, other: Timing) -> tuple[float, float]:
        """Return where 95% of the rounds' ratios lie."""
        low, high = np.quantile(other.rounds_ms / self.rounds_ms, [0.025, 0.975])
        return float(low), float(high)


def time_family(
    folder: Path, family: Family, texts: Sequence[str], *, rounds: int, seed: int
) -> dict[str, Timing]:
    """Time every variant on one thread; in every round all of them answer the same texts, in another order.

    Args:
        folder, family: the family.
        texts: a sample of real traffic; every round draws TEXTS_PER_ROUND of them.
        rounds: R.
        seed: of texts and order.
    """
    rng = np.random.default_rng(seed)
    loaded = {name: load_variant(folder, family, name, threads=1) for name in family.names}
    taken = time_interleaved(
        {name: partial(_answer, variant) for name, variant in loaded.items()},
        texts,
        rounds=rounds,
        per_round=TEXTS_PER_ROUND,
        rng=rng,
    )
    for variant in loaded.values():
        variant.runtime.close()
    return {
        name: Timing(
            p50_ms=float(np.quantile(calls, 0.5)),
            p99_ms=float(np.quantile(calls, 0.99)),
            rounds_ms=np.median(calls, axis=1),
        )
        for name, calls in taken.items()
    }


def _answer(variant: LoadedVariant, text: str) -> object:
    return variant.logits([text])
