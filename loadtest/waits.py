"""How long clients waited, and how much of it was within the objective. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.formulas import Interval, exact_quantile, quantile_interval, wilson_interval
from contract.run import abstained
from loadtest.estimates import CONFIDENCE
from loadtest.exchange import TIMED_OUT


@dataclass(frozen=True)
class Waits:
    """How long clients waited and servers took, over the `n` requests that count; None where none does."""

    n: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    p99_interval_ms: Interval | None = None
    service_p50_ms: float | None = None
    service_p99_ms: float | None = None


@dataclass(frozen=True)
class Goodput:
    """Answers within the objective, per second; None without an objective or a request."""

    per_s: float | None = None
    interval: Interval | None = None


def answered(requests: pa.Table) -> NDArray[np.bool_]:
    """Return [N] whether each request got an answer, or the word that a person is to give it."""
    said = np.asarray(pc.is_valid(requests["answer"]).to_numpy(), dtype=bool)
    return np.asarray((said | abstained(requests)) & (requests["status"].to_numpy() == 200), dtype=bool)


def timed(requests: pa.Table) -> NDArray[np.bool_]:
    """Return [N] whether a request counts in latency: it was answered, or waited until its timeout."""
    late: NDArray[np.bool_] = requests["status"].to_numpy() == TIMED_OUT
    return np.logical_or(answered(requests), late)


def waits(requests: pa.Table) -> Waits:
    """Return the percentiles of the requests that count, p99 with its interval by order statistics."""
    counted = timed(requests)
    waited, service = (
        requests[name].to_numpy(zero_copy_only=False)[counted] for name in ("latency_ms", "service_ms")
    )
    if not waited.size:
        return Waits(0)
    return Waits(
        waited.size,
        exact_quantile(waited, 0.5),
        exact_quantile(waited, 0.99),
        quantile_interval(waited, 0.99, CONFIDENCE),
        exact_quantile(service, 0.5),
        exact_quantile(service, 0.99),
    )


def goodput(requests: pa.Table, slo_ms: float | None, rate_per_s: float) -> Goodput:
    """Return the answers within the objective at the rate held, with Wilson's interval of their share."""
    n = requests.num_rows
    if slo_ms is None or not n:
        return Goodput()
    latency = requests["latency_ms"].to_numpy(zero_copy_only=False)
    within = int((answered(requests) & (latency <= slo_ms)).sum())
    low, high = wilson_interval(within, n)
    return Goodput(within / n * rate_per_s, (low * rate_per_s, high * rate_per_s))
