"""`python -m bench.routing --data DIR`: run the routing benchmark and write its page."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from bench.routing import goals
from bench.routing.labels import few_labels
from bench.routing.live import live
from bench.routing.lives import lives
from bench.routing.mix import moving_mix
from bench.routing.speed import speed
from contract.files import write_text

INTRODUCTION = """# Routing on public replay tables

Made by `python -m bench.routing --data DIR`, DIR holding one folder per table with predictions.parquet
(label, V/prediction, V/confidence) and costs.json (usd_per_1k per variant). Sources: FrugalML's API tables
(github.com/lchen001/FrugalML, Apache-2.0) and published ImageNet predictions of ResNets
(github.com/cgnorthcutt/benchmarking-keras-pytorch, MIT; usd_per_1k holds GFLOPs). Predictions outside the
label set count as wrong. Everything random has a fixed seed: figures, times apart, come out the same."""


def main() -> None:
    """Run the sections asked for, in order, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with one folder per replay table; of CLINC150 for --only mix",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/routing.md"))
    parser.add_argument("--only", help="sections, comma-separated")
    given = parser.parse_args()
    sections: dict[str, Callable[[], str]] = {
        "apis": lambda: goals.api_marketplace(given.data),
        "two": lambda: goals.two_stages(given.data),
        "labels": lambda: few_labels(given.data),
        "three": lambda: goals.three_stages(given.data),
        "ties": lambda: goals.ties_and_strangers(given.data),
        "scores": lambda: goals.score_areas(given.data),
        "live": live,
        "lives": lambda: lives(given.data),
        "speed": speed,
        "mix": lambda: moving_mix(given.data),
    }
    chosen = given.only.split(",") if given.only else list(sections)
    parts = [INTRODUCTION]
    for name in chosen:
        started = time.perf_counter()
        parts.append(sections[name]())
        print(f"{parts[-1]}\n\n[{name}: {time.perf_counter() - started:.0f} s]\n", flush=True)
    if given.only is None:
        write_text(given.out, "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
