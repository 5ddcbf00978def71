"""`python -m bench.gateway.batch_rules`: one model in one process, by how it is batched.

    python -m bench.gateway.batch_rules --family FAMILY --variant student-int8 \\
        --rules '{}' '{"max_items": 1}' '{"run_in": "loop"}'

The gateway's code without Ray, once for every set of rules (the settings of a stage under `batch`), beside
FastAPI with the same model in one process. All in one run, in rounds, each in the other order; medians.
Nothing else may run meanwhile. It needs `wrk`, and makes an environment for FastAPI, once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from bench.gateway.driving import drive
from bench.gateway.search import CLIENTS
from bench.gateway.servers import Places, Server, hand_over, replica, running
from bench.gateway.texts import short_texts
from contract.family import read_family
from contract.files import write_json

PLAIN = "FastAPI, one process"


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway.batch_rules")
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--variant", default="student-int8")
    parser.add_argument("--rules", nargs="+", default=["{}"], metavar="JSON", help='such as {"max_items": 1}')
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--environments", type=Path, default=Path(".sluicegate/peers"))
    parser.add_argument("--figures", type=Path, default=Path(".sluicegate/batch-rules.json"))
    given = parser.parse_args()
    family = read_family(given.family)
    with tempfile.TemporaryDirectory() as scratch:
        hand_over(given.family, family, given.variant, Path(scratch))
        places = Places(given.environments.resolve(), Path(scratch))
        folder = given.family.resolve()
        arms: dict[str, Callable[[], AbstractContextManager[Server, bool | None]]] = {
            PLAIN: partial(running, "fastapi", {"WORKERS": 1, "THREADS": 1}, places)
        } | {rules: partial(replica, folder, given.variant, rules) for rules in given.rules}
        runs = measure(arms, short_texts(given.family, family), given)
    for line in table(runs):
        print(line)
    found = [
        {"server": name, "clients": clients} | run for (name, clients), all_ in runs.items() for run in all_
    ]
    write_json(given.figures, {"variant": given.variant, "runs": found})


def measure(
    arms: dict[str, Callable[[], AbstractContextManager[Server, bool | None]]],
    texts: list[str],
    given: argparse.Namespace,
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return what `wrk` saw, by server and clients, a row a round."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number in range(given.rounds):
        for name, start in list(arms.items())[:: 1 if number % 2 == 0 else -1]:
            with start() as server:
                drive(server, texts, 4, 1.0)
                for clients in given.clients:
                    driven = drive(server, texts, clients, given.seconds)
                    runs.setdefault((name, clients), []).append(driven.to_json())
                    print(f"{name}: {driven.per_s:.0f}/s at {clients} clients", file=sys.stderr)
    return runs


def table(runs: dict[tuple[str, int], list[dict[str, Any]]]) -> list[str]:
    """Return the medians in Markdown, each rate beside FastAPI's."""

    def median(at: tuple[str, int], key: str) -> float:
        return float(statistics.median(run[key] for run in runs[at]))

    lines = [
        "| server | clients | requests/s | of FastAPI | p50 ms | p99 ms | CPU ms/request | errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, clients in sorted(runs, key=lambda at: (at[1], at[0] != PLAIN)):
        at = name, clients
        rate = median(at, "per_s")
        lines.append(
            f"| {name} | {clients} | {rate:,.0f} | {rate / median((PLAIN, clients), 'per_s'):.2f} "
            f"| {median(at, 'p50_ms'):.2f} | {median(at, 'p99_ms'):.1f} | {median(at, 'cpu_ms'):.2f} "
            f"| {sum(run['errors'] for run in runs[at])} |"
        )
    return lines


if __name__ == "__main__":
    main()
