"""The table of batch rules, from figures made by hand."""

from __future__ import annotations

from bench.gateway.batch_rules import PLAIN, table
from bench.gateway.driving import Driven


def run(per_s: float, errors: int = 0) -> dict[str, object]:
    """What wrk saw in one round."""
    return Driven(16, per_s, 2.0, 9.0, 0.5, errors).to_json()


def test_rates_are_medians_beside_fastapi() -> None:
    """FastAPI comes first; rates are medians, each beside what it is of FastAPI's; errors add up."""
    rows = table({("{}", 16): [run(900), run(1100, 2), run(1300, 1)], (PLAIN, 16): [run(500), run(600)]})
    assert rows[2:] == [
        f"| {PLAIN} | 16 | 550 | 1.00 | 2.00 | 9.0 | 0.50 | 0 |",
        "| {} | 16 | 1,100 | 2.00 | 2.00 | 9.0 | 0.50 | 3 |",
    ]
