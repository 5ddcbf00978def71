"""`python -m bench.decisions --data clinc150 --out OUT`: both sides on CLINC150, and the page.

OUT keeps what was made: the family, the rival's table, what the stand-in answered.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.decisions.compare import CASCADES, compare
from bench.decisions.data import OUT_OF_SCOPE, prepare, read
from bench.decisions.draws import RIVAL, UPSTREAM, draws_of, with_others
from bench.decisions.page import render
from bench.decisions.peer import TIMED, Job, Rows, ask_rival
from bench.decisions.savings import measure
from bench.decisions.timing import decision_us
from bench.gateway.environments import PACKAGES
from contract.costs import Cost
from contract.family import read_family
from contract.files import write_json, write_text
from contract.predictions import PREDICTIONS
from runtime.machine import describe_machine
from tables.predictions import read_predictions

RECIPE = Path(__file__).with_name("clinc150.yaml")
ALPHAS = (0.05, 0.02)
DELTA = 0.1
DELAY_MS, USD_PER_1K = 300.0, 0.03
ASKED = 600


def main() -> None:
    """Make what is missing, compare on all draws, time, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.decisions", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CLINC150 with its out_of_scope_*.csv")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--environments", type=Path, default=Path(".sluicegate/peers"))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument(
        "--certifying", type=int, default=4_000, help="Rows of a draw that thresholds come from"
    )
    parser.add_argument("--student", choices=["auto", "linear", "deep"], default="auto", help="Of the rival")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-gateway", action="store_true", help="Leave out the part that starts one")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/decisions.md"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data = given.out / "data"
    if not (data / "answers.csv").exists():
        data.mkdir(exist_ok=True)
        prepare(given.data, data)
    folder = given.out / "family"
    if not (folder / "family.json").exists():
        _compress(data, folder)
    figures = _figures(given, data, folder)
    write_json(given.out / "figures.json", figures)
    write_text(given.page, render(figures))
    print(f"written {given.page}")


def _compress(data: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "sluicegate.main", "compress", str(RECIPE), "--out", str(folder)]
    if subprocess.run([*command, "--data", str(data)], check=False).returncode not in {0, 3}:
        raise SystemExit("sluice compress failed")


def _figures(given: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:
    train = Rows(*read(data / "train.csv"))
    family, predictions = read_family(folder), read_predictions(folder / PREDICTIONS)
    labels = [str(label) for label in predictions.labels]
    if family.data is None:
        raise SystemExit(f"{folder} keeps no held-out texts: remove it")
    rows = pq.read_table(folder / family.data.path, columns=["text", "label"])
    held = Rows(rows["text"].to_pylist(), [labels[row] for row in predictions.label])
    if rows["label"].to_pylist() != list(held.answers):
        raise SystemExit(f"{folder}: its texts and its predictions are of different rows")
    draws = draws_of(len(held.texts), given.certifying, given.draws, given.seed)
    job = Job(train, held, draws, ALPHAS, DELTA, given.student)
    rival = ask_rival(job, given.out, given.environments.resolve())
    place = {label: index for index, label in enumerate(labels)}
    named = sorted(set(train.answers))
    table = with_others(
        predictions, [place[named[index]] for index in rival["predicted"]], rival["confidence"]
    )
    costs = {variant.name: Cost(variant.usd_per_1k or 0.0) for variant in family.variants}
    costs |= {RIVAL: Cost(costs["deep"].usd_per_1k), UPSTREAM: Cost(USD_PER_1K)}
    lines, policies = compare(table, costs, draws, rival, ALPHAS, DELTA)
    texts = held.texts[:TIMED]
    times = {"shad0wllm": rival["decide_us"]}
    for name in list(CASCADES)[1:]:
        policy = policies[f"{name}, local, {ALPHAS[0]:g}"]
        times[name] = decision_us(folder, family, policy, labels, texts)
    figures = {
        "machine": describe_machine().model_dump(mode="json"),
        "setting": _setting(given, train, held, rival),
        "lines": lines,
        "accuracy": {name: float(table.correct(name).mean()) for name in table.variants if name != UPSTREAM},
        "times": {"texts": len(texts), "alpha": ALPHAS[0], "found": times},
    }
    if not given.no_gateway:
        asked = Rows(held.texts[-ASKED:], held.answers[-ASKED:])
        environments = given.environments.resolve()
        figures["savings"] = measure(folder, given.out, asked, environments, DELAY_MS, USD_PER_1K)
    return figures


def _setting(given: argparse.Namespace, train: Rows, held: Rows, rival: dict[str, Any]) -> dict[str, Any]:
    answers = list(held.answers)
    (told,) = rival["training"]["certificate"]["questions"].values()
    return {
        "train": len(train.texts),
        "oos_train": list(train.answers).count(OUT_OF_SCOPE),
        "held": len(answers),
        "oos_held": answers.count(OUT_OF_SCOPE) / len(answers),
        "draws": given.draws,
        "certifying": given.certifying,
        "delta": DELTA,
        "version": PACKAGES["shad0w"][0].rpartition("==")[2],
        "student": told["student"] if given.student == "auto" else given.student,
    }


if __name__ == "__main__":
    main()
