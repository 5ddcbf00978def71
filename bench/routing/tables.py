"""Reading replay tables and replaying policies on them quickly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.costs import Cost, read_costs
from contract.policy import Policy
from contract.predictions import Predictions
from router.decide.cascade import compile_policy
from router.decide.simulate import replay
from tables.predictions import read_predictions


@dataclass(frozen=True)
class ReplayTable:
    """A table with its costs."""

    name: str
    predictions: Predictions
    costs: dict[str, Cost]


@dataclass(frozen=True)
class Figures:
    """What a policy does on some rows: drop against the reference, escalation rate, usd_per_1k, accuracy."""

    drop: float
    escalation: float
    usd: float
    accuracy: float


def read(data: Path, name: str) -> ReplayTable:
    """Read one table of the replay folder."""
    folder = data / name
    predictions = read_predictions(folder / "predictions.parquet")
    return ReplayTable(name, predictions, read_costs(folder / "costs.json"))


def figures(policy: Policy, predictions: Predictions, costs: dict[str, Cost], reference: str) -> Figures:
    """Replay `policy` on all rows."""
    compiled = compile_policy(policy, predictions.labels)
    rows = replay(compiled, predictions)
    accuracy = float((rows.answer == predictions.label).mean())
    usd = np.array([costs[stage.variant].usd_per_1k for stage in compiled.stages])
    return Figures(
        drop=float(predictions.correct(reference).mean()) - accuracy,
        escalation=float(rows.escalated.mean()),
        usd=float((rows.ran @ usd).mean()),
        accuracy=accuracy,
    )


def with_split(predictions: Predictions, rows: NDArray[np.int64], tune: int) -> Predictions:
    """Return the rows, the first `tune` of them marked tune and the others certify."""
    part = predictions.take(rows)
    return replace(part, split=np.where(np.arange(len(rows)) < tune, "tune", "certify"))


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
