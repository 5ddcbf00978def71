"""What the load generator itself costs and how late it sends, against a server that does nothing.

    python bench/loadtest/generator.py [--rates 100,500,1000,2000,3000] [--seconds 5] [--json]

The server is `python -m loadtest.reference`, another process on the same machine. A rate is fit for use
while the run is valid: send lag p99 within 5% of the objective, the rate reached, the generator under 80%
of its core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from loadtest.runner import LoadPlan
from loadtest.sweep import rate_curve
from tables.labelled import from_rows

OBJECTIVE_MS = 50.0
TEXT = "shares rose after the bank cut its rates while the team won the final in extra time"


@contextmanager
def null_server() -> Iterator[str]:
    """Start a reference server that answers at once; give its URL."""
    command = [sys.executable, "-m", "loadtest.reference"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def main() -> None:
    """Print one row per rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", default="100,500,1000,2000,3000")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rates = [float(rate) for rate in asked.rates.split(",")]
    data = from_rows([(f"label{i % 5} {TEXT} {i}", f"label{i % 5}") for i in range(200)])
    with null_server() as url:
        plan = LoadPlan(url, data, 1.0, asked.seconds, slo_ms=OBJECTIVE_MS, warmup_s=1.0)
        steps = rate_curve(plan, rates)
    rows = [
        {
            "rate_per_s": s.rate_asked_per_s,
            "valid": s.valid,
            "send_lag_p99_ms": s.send_lag_p99_ms,
            "p50_ms": s.p50_ms,
            "p99_ms": s.p99_ms,
            "generator_cpu_share": s.generator_cpu_share,
            "generator_us_per_request": 1e6 * (s.generator_cpu_share or 0.0) / s.rate_held_per_s,
        }
        for s in (step.summary for step in steps)
    ]
    if asked.json:
        print(json.dumps(rows, indent=2))
        return
    print(*rows[0], sep="\t")
    for row in rows:
        print(*(f"{v:.3g}" if isinstance(v, float) else v for v in row.values()), sep="\t")


if __name__ == "__main__":
    main()
