"""What clients wait for a cascade, predicted from its stages."""

from __future__ import annotations

import numpy as np
import pytest

from router.decide.latency import predicted_latency

SMALL = {0.5: 1.0, 0.99: 2.0}
LARGE = {0.5: 300.0, 0.9: 400.0, 0.99: 500.0}


def paths(escalated: int, n: int = 1000) -> np.ndarray:
    """Which of two stages ran: the first for all, the second for some."""
    ran = np.ones((n, 2), dtype=bool)
    ran[escalated:, 1] = False
    return ran


def test_a_single_stage_has_its_own_quantiles() -> None:
    """Nothing else is in it."""
    found = predicted_latency(np.ones((10, 1), dtype=bool), [LARGE])
    assert found["latency_p50_ms"] == pytest.approx(300, rel=1e-3)
    assert found["latency_p99_ms"] == pytest.approx(500, rel=1e-3)


def test_the_tail_is_where_the_escalated_are() -> None:
    """With 2% escalated the p99 is the median of these; with half a percent it is the first stage's tail."""
    found = predicted_latency(paths(20), [SMALL, LARGE])
    assert found["latency_p50_ms"] == pytest.approx(1.0, abs=0.1)
    assert found["latency_p99_ms"] == pytest.approx(301, rel=0.02)
    few = predicted_latency(paths(5), [SMALL, LARGE])["latency_p99_ms"]
    assert few is not None
    assert few <= 2.0


def test_sampled_times_have_the_predicted_quantiles() -> None:
    """Drawn from the same quantiles, a tenth escalated, the p99 is as predicted, within the draws' error."""
    rng = np.random.default_rng(0)
    n = 200_000
    ran = rng.random(n) < 0.1
    shares = rng.random(n)
    drawn = np.interp(shares, list(SMALL), list(SMALL.values()))
    drawn += ran * np.interp(rng.random(n), list(LARGE), list(LARGE.values()))
    found = predicted_latency(np.stack([np.ones(n, dtype=bool), ran], axis=1), [SMALL, LARGE])
    assert found["latency_p99_ms"] == pytest.approx(np.quantile(drawn, 0.99), rel=0.02)


def test_a_stage_without_quantiles_leaves_it_unknown() -> None:
    """Unless no request reaches it."""
    assert predicted_latency(paths(20), [SMALL, {}]) == {"latency_p50_ms": None, "latency_p99_ms": None}
    assert predicted_latency(paths(0), [SMALL, {}])["latency_p50_ms"] == pytest.approx(1.0, abs=0.1)
