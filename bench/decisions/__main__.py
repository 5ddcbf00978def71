"""`python -m bench.decisions --data clinc150 --out OUT`: both sides on CLINC150, and the page.

OUT keeps what was made: the family, the rival's table, what the stand-in answered, and the figures of each
part, so that `--only` does one of them; `times` and `savings` want a machine without anything else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.decisions.compare import CASCADES, compare
from bench.decisions.data import OUT_OF_SCOPE, prepare, read
from bench.decisions.draws import RIVAL, UPSTREAM, Split, draws_from_pool, draws_of, with_others
from bench.decisions.page import render
from bench.decisions.peer import TIMED, Job, Rows, ask_rival
from bench.decisions.savings import measure, sluice
from bench.decisions.timing import decision_us
from bench.gateway import at_the_sdk
from bench.gateway.environments import PACKAGES
from contract.costs import Cost
from contract.family import Family, read_family
from contract.files import write_json, write_text
from contract.policy import read_policy
from contract.predictions import PREDICTIONS, Predictions
from runtime.machine import describe_machine
from tables.predictions import read_predictions

RECIPE = Path(__file__).with_name("clinc150.yaml")
ALPHAS = (0.05, 0.02)
DELTA = 0.1
DELAY_MS, USD_PER_1K = 300.0, 0.03
ASKED = 600
PARTS = ("family", "shares", "promises", "times", "sdk", "savings")
TIMED_CASCADES = tuple(name for name in CASCADES if RIVAL not in CASCADES[name])


def main() -> None:
    """Do the parts that are asked for, keep their figures, and write the page from all that is there."""
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
    parser.add_argument("--only", choices=PARTS, action="append", help="One part; may be repeated")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/decisions.md"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    parts = given.only or PARTS
    data, folder, kept = given.out / "data", given.out / "family", given.out / "figures.json"
    if not (data / "answers.csv").exists():
        data.mkdir(exist_ok=True)
        prepare(given.data, data)
    if not (folder / "family.json").exists():
        _compress(data, folder)
    figures = json.loads(kept.read_bytes()) if kept.exists() else {}
    figures["machine"] = describe_machine().model_dump(mode="json")
    for part in parts:
        figures |= _PARTS[part](given, data, folder)
        write_json(kept, figures)
    if "lines" in figures:
        write_text(given.page, render(figures))
        print(f"written {given.page}")


def _compress(data: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "sluicegate.main", "compress", str(RECIPE), "--out", str(folder)]
    if subprocess.run([*command, "--data", str(data)], check=False).returncode not in {0, 3}:
        raise SystemExit("sluice compress failed")


@dataclass(frozen=True)
class Table:
    """What both sides answered to the held-out rows.

    Attributes:
        labels: of the family, in its order.
        predictions: of every variant, the rival and the large model.
    """

    train: Rows
    held: Rows
    family: Family
    labels: list[str]
    draws: list[Split]
    rival: dict[str, Any]
    predictions: Predictions


def _table(
    given: argparse.Namespace, data: Path, folder: Path, draw: Callable[..., list[Split]] = draws_of
) -> Table:
    train = Rows(*read(data / "train.csv"))
    family, predictions = read_family(folder), read_predictions(folder / PREDICTIONS)
    labels = [str(label) for label in predictions.labels]
    if family.data is None:
        raise SystemExit(f"{folder} keeps no held-out texts: remove it")
    rows = pq.read_table(folder / family.data.path, columns=["text", "label"])
    held = Rows(rows["text"].to_pylist(), [labels[row] for row in predictions.label])
    if rows["label"].to_pylist() != list(held.answers):
        raise SystemExit(f"{folder}: its texts and its predictions are of different rows")
    draws = draw(len(held.texts), given.certifying, given.draws, given.seed)
    job = Job(train, held, draws, ALPHAS, DELTA, given.student)
    rival = ask_rival(job, given.out, given.environments.resolve())
    place = {label: index for index, label in enumerate(labels)}
    named = sorted(set(train.answers))
    predicted = [place[named[index]] for index in rival["predicted"]]
    whole = with_others(predictions, predicted, rival["confidence"])
    return Table(train, held, family, labels, draws, rival, whole)


def _nothing(given: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:  # noqa: ARG001 - a part
    return {}


def _shares(given: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:
    """Return what both sides answer on every draw; our policies of the first draw are kept in OUT."""
    table = _table(given, data, folder)
    lines, policies = compare(
        table.predictions, _costs(table.family), table.draws, table.rival, ALPHAS, DELTA
    )
    for name in TIMED_CASCADES:
        policy = policies[f"{name}, local, {ALPHAS[0]:g}"]
        write_json(given.out / f"{name.replace(' -> ', '-')}.json", policy.dump())
    whole = table.predictions
    return {
        "setting": _setting(given, table.train, table.held, table.rival),
        "lines": lines,
        "accuracy": {name: float(whole.correct(name).mean()) for name in whole.variants if name != UPSTREAM},
    }


def _costs(family: Family) -> dict[str, Cost]:
    costs = {variant.name: Cost(variant.usd_per_1k or 0.0) for variant in family.variants}
    return costs | {RIVAL: Cost(costs["deep"].usd_per_1k), UPSTREAM: Cost(USD_PER_1K)}


def _promises(given: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:
    """Return how often each breaks its promise where what certifies is drawn from what is counted on."""
    table = _table(given, data, folder, draws_from_pool)
    costs = _costs(table.family)
    lines, _ = compare(table.predictions, costs, table.draws, table.rival, ALPHAS, DELTA, ("local",))
    return {"promises": lines}


def _times(given: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:
    """Return what a decision takes on both sides, by the policies that `shares` kept."""
    table = _table(given, data, folder)
    texts = table.held.texts[:TIMED]
    found: dict[str, dict[str, Any]] = {"shad0wllm": table.rival["decide_us"]}
    for name in TIMED_CASCADES:
        policy = read_policy(given.out / f"{name.replace(' -> ', '-')}.json")
        stages = " -> ".join(stage.variant for stage in policy.stages)
        found[name] = decision_us(folder, table.family, policy, table.labels, texts) | {"stages": stages}
    return {"times": {"texts": len(texts), "alpha": ALPHAS[0], "found": found}}


def _at_the_sdk(given: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:  # noqa: ARG001 - a part
    """Return what `/v1/decisions` takes at the SDK beside `/v1/classify`, of a cascade of ours alone."""
    policy = given.out / "policy.json"
    if not policy.exists():
        drop = ("--max-accuracy-drop", "0.01", "--reference", "student-int8")
        sluice("tune", str(folder), *drop, "--variants", "linear,student-int8", "--out", str(policy))
    return {"sdk": at_the_sdk.measured(folder.resolve(), policy.resolve())}


def _savings(given: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:  # noqa: ARG001 - a part
    """Return what is saved before a slow, priced model."""
    family = read_family(folder)
    if family.data is None:
        raise SystemExit(f"{folder} keeps no held-out texts: remove it")
    rows = pq.read_table(folder / family.data.path, columns=["text", "label"])
    texts, answers = rows["text"].to_pylist()[-ASKED:], rows["label"].to_pylist()[-ASKED:]
    environments = given.environments.resolve()
    return {"savings": measure(folder, given.out, Rows(texts, answers), environments, DELAY_MS, USD_PER_1K)}


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


_PARTS = {
    "family": _nothing,
    "shares": _shares,
    "promises": _promises,
    "times": _times,
    "sdk": _at_the_sdk,
    "savings": _savings,
}


if __name__ == "__main__":
    main()
