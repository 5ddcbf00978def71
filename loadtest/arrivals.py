"""When requests arrive and which row each one asks: drawn beforehand, from a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contract.errors import InputError
from loadtest.traffic import Traffic

POISSON = Traffic()


def planned_requests(rate_per_s: float, duration_s: float) -> int:
    """Return how many requests a run at that rate sends: rate x duration, rounded, at least 1."""
    return max(1, round(rate_per_s * duration_s))


def arrival_times_s(
    rate_per_s: float, duration_s: float, *, seed: int, traffic: Traffic = POISSON
) -> NDArray[np.float64]:
    """Return sorted arrival times [N] in [0, duration_s), N = round(rate x duration), at least 1.

    Fixing the count takes the noise of the count out of the rate, and leaves the gaps as they are. A trace
    has times and a count of its own.

    Raises:
        InputError: unless rate and duration are positive and finite.
    """
    if not (0 < rate_per_s < float("inf") and 0 < duration_s < float("inf")):
        raise InputError(
            f"rate and duration must be positive, not {rate_per_s} per second for {duration_s} s"
        )
    if traffic.trace:
        return np.array(traffic.trace, dtype=np.float64)
    rng = np.random.default_rng([seed, 0])
    return traffic.times_s(planned_requests(rate_per_s, duration_s), duration_s, rng)


def rows_to_ask(rows: int, n: int, *, seed: int) -> NDArray[np.int64]:
    """Return [n] row indices: shuffled passes over all rows, each asked equally often (+-1)."""
    if rows < 1:
        raise InputError("there are no rows to ask")
    rng = np.random.default_rng([seed, 1])
    passes = [rng.permutation(rows) for _ in range(-(-n // rows))]
    order: NDArray[np.int64] = np.concatenate(passes or [np.empty(0, np.int64)])[:n].astype(np.int64)
    return order
