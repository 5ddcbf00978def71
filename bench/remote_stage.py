"""A cascade whose last stage is a model behind HTTP: what simulate predicts, and what a load then measures.

    python -m bench.remote_stage [--delay-ms 300] [--usd-per-1k 0.03] [--rate 20] [--duration 30] [--seed 1]
        [--out docs/benchmarks/remote.md]

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
from contract.files import write_text
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
PAGE = """\
# A stage behind HTTP: predicted and measured

    python -m bench.remote_stage --out docs/benchmarks/remote.md

A stand-in for a large model that answers after {delay:g} ms at {usd:g} USD per 1,000 is the reference behind
a small fake. `sluice simulate` predicts from the rows that were asked beforehand; then {rate:g} requests per
second come for {seconds:g} s (Poisson, seed {seed}), and `sluice loadtest` measures. The price is that of the
model and of the CPU-seconds used here. Predicted times are those of the stages alone: a gateway's own
milliseconds come on top. {machine}.

| threshold | | escalated | accuracy | p50 ms | p99 ms | USD per 1,000 |
| --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


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
    parser.add_argument("--out", type=Path, help="The page, such as docs/benchmarks/remote.md")
    asked = parser.parse_args()
    text = page(asked, compared(asked))
    if asked.out is None:
        sys.stdout.write(text)
    else:
        write_text(asked.out, text)


def compared(asked: argparse.Namespace) -> list[str]:
    """Return a row of predicted and one of measured figures per threshold."""
    rows = []
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
            for threshold in asked.thresholds:
                policy = cascade(folder, threshold)
                predicted = sluice("simulate", folder, "--policy", policy, "--split", "all")
                found = measured(folder, policy, asked)
                void = "" if found["valid"] else f" (void: {found['void_reason']})"
                for name, figures, keys in (
                    ("predicted", predicted, KEYS), (f"measured{void}", found, MEASURED),
                ):  # fmt: skip
                    cells = " | ".join(f"{figures[key]:.4g}" for key in keys)
                    rows.append(f"| {threshold:g} | {name} | {cells} |")
                    print(rows[-1], file=sys.stderr)
    return rows


def page(asked: argparse.Namespace, rows: list[str]) -> str:
    """Return the page in Markdown."""
    machine = describe_machine()
    return PAGE.format(
        delay=asked.delay_ms,
        usd=asked.usd_per_1k,
        rate=asked.rate,
        seconds=asked.duration,
        seed=asked.seed,
        machine=f"{machine.cpu}, {machine.cores:g} cores",
        rows="\n".join(rows),
    )


if __name__ == "__main__":
    main()
