"""A cascade whose last stage is a model behind HTTP: what simulate predicts, and what a load then measures.

    python -m bench.remote_stage [--delay-ms 300] [--usd-per-1k 0.03] [--rate 20] [--duration 30] [--seed 1]

A stand-in for a large model answers chat questions after a delay, at a price. It is added to a family of
fakes, asked for the family's rows, and served as the reference behind the small fake. The rows that predict
are those whose texts are sent; the price is that of the model and of the CPU-seconds used here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from compress.add_remote import ANSWERS, RemoteAddition, add_remote
from contract.policy import Policy, Stage
from contract.remote import RemoteModel
from runtime.fake_family import write_fake_family
from runtime.machine import describe_machine
from serve.local import launcher
from serve.local.front_end.ports import free_ports
from serve.settings.gateway import Settings
from serve.standin.server import serving
from serve.standin.settings import StandInSettings

ROWS = 600
KEYS = ("escalation_rate", "accuracy", "latency_p50_ms", "latency_p99_ms", "usd_per_1k")
MEASURED = ("escalation_rate", "accuracy", "p50_ms", "p99_ms", "usd_per_1k_by_cpu")


def cascade(folder: Path, threshold: float) -> Path:
    """Write a policy of the small fake and the model behind HTTP, and return its path."""
    stages = (Stage(variant="fake-small", threshold=threshold), Stage(variant="large"))
    policy = Policy(status="uncertified", reference="large", stages=stages).sealed()
    path = folder / f"policy-{threshold:g}.json"
    path.write_text(policy.model_dump_json(by_alias=True))
    return path


def sluice(*arguments: object) -> dict[str, Any]:
    """Return the JSON that a command writes."""
    command = [sys.executable, "-m", "sluicegate", *map(str, arguments), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def measured(folder: Path, policy: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the summary of a load on a gateway with that policy."""
    port, admin_port = free_ports(2)
    settings = Settings(family=str(folder), policy=str(policy), port=port, admin_port=admin_port, replicas=1)
    with launcher.start(settings) as gateway:
        return sluice(
            "loadtest", gateway.url, "--data", folder / "data.parquet", "--rate", asked.rate,
            "--duration", asked.duration, "--seed", asked.seed,
        )  # fmt: skip


def main() -> None:
    """Print predicted and measured figures, one line per threshold."""
    parser = argparse.ArgumentParser(prog="python -m bench.remote_stage", description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=300.0)
    parser.add_argument("--usd-per-1k", type=float, default=0.03)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.9])
    asked = parser.parse_args()
    machine = describe_machine()
    print(
        f"{machine.cpu}, {machine.cores:g} cores; {asked.rate:g}/s, {asked.duration:g} s, seed {asked.seed}"
    )
    with tempfile.TemporaryDirectory() as place:
        folder, large = Path(place) / "family", Path(place) / "large"
        write_fake_family(folder, rows=ROWS, delay_ms=0.0)
        write_fake_family(large, rows=60, delay_ms=0.0)
        priced = StandInSettings(delay_ms=asked.delay_ms, usd_per_1k=asked.usd_per_1k, port=0)
        with serving(large, priced) as running:
            model = RemoteModel(
                form="chat", url=f"{running.url}/v1", model="stand-in", usd_per_call=asked.usd_per_1k / 1000
            )  # fmt: skip
            add_remote(folder, RemoteAddition("large", model, folder / ANSWERS, reference=True), folder)
            print("| threshold | | escalated | accuracy | p50 ms | p99 ms | USD per 1,000 |")
            print("| --- | --- | --- | --- | --- | --- | --- |")
            for threshold in asked.thresholds:
                policy = cascade(folder, threshold)
                predicted = sluice("simulate", folder, "--policy", policy, "--split", "all")
                found = measured(folder, policy, asked)
                for name, figures, keys in (
                    ("predicted", predicted, KEYS), ("measured", found, MEASURED),
                ):  # fmt: skip
                    cells = " | ".join(f"{figures[key]:.4g}" for key in keys)
                    print(f"| {threshold:g} | {name} | {cells} |", flush=True)
                if not found["valid"]:
                    print(f"void: {found['void_reason']}")


if __name__ == "__main__":
    main()
