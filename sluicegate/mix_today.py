"""Today's texts for a policy with cells: from decisions, predictions or the texts themselves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import PolicyError, PredictionsError
from contract.policy import Policy
from contract.probabilities import softmax
from router.decide.scores import FloatArray
from router.mix.today import today
from runtime.load import load_variant
from sluicegate.inputs import Table
from tables.columnar import ENDINGS, PARQUET
from tables.labelled import read_labelled
from tables.predictions import read_predictions

Said = tuple[list[str], FloatArray]


def mix_today(path: Path, policy: Policy, table: Table) -> dict[str, Any]:
    """Return what the texts of a file say of the policy's cells, as JSON has it; labels are not read.

    Args:
        path: exported decisions (Parquet), predictions of the first stage, or texts, which
            the first stage of the family answers here.

    Raises:
        PolicyError: the policy has no cells. PredictionsError: the file does not tell what is needed.
    """
    if policy.mix is None:
        raise PolicyError(
            "the policy has no cells, so nothing is known of another mix",
            hint="sluice tune ... --cells auto, or --max-share LABEL=X",
        )
    predicted, score = _said(path, policy.mix.variant, table)
    first = policy.stages[0].threshold
    found = today(policy.mix, predicted, score, 0.0 if first is None else first)
    told = {"by": policy.mix.by, "epsilon": policy.mix.epsilon, **asdict(found)}
    shares = told.pop("shares", ())
    if shares:
        told["cells"] = [
            {"name": cell.name, "accepted": cell.accepted, "bound": cell.bound, "share": share}
            for cell, share in zip(policy.mix.cells, shares, strict=False)
        ]
    return told


def _said(path: Path, variant: str, table: Table) -> Said:
    """Return what the variant said of each text, and how sure it was."""
    names = pq.read_schema(path).names if path.suffix.lower() in PARQUET and path.is_file() else []
    if {"request_id", "stages"} <= set(names):
        return _of_decisions(pq.read_table(path, columns=["stages"]), path, variant)
    if path.suffix.lower() in ENDINGS and "text" not in names:
        return _of_predictions(path, variant)
    return _of_texts(path, variant, table)


def _of_decisions(rows: pa.Table, path: Path, variant: str) -> Said:
    firsts = [stages[0] for stages in rows["stages"].to_pylist() if stages]
    mine = [stage for stage in firsts if stage["variant"] == variant]
    if not mine:
        raise PredictionsError(f"no decision there began with {variant!r}", where=path)
    return [str(s["label"]) for s in mine], np.array([s["score"] for s in mine], dtype=np.float64)


def _of_predictions(path: Path, variant: str) -> Said:
    rows = read_predictions(path)
    if variant not in rows.variants:
        raise PredictionsError(
            f"there is no variant {variant!r} in it, whose answers tell the cells",
            where=path,
            hint=f"variants: {', '.join(rows.names)}",
        )
    own = rows.variants[variant]
    labels = [str(label) for label in rows.labels]
    return [labels[i] if i >= 0 else "" for i in own.prediction.tolist()], own.confidence


def _of_texts(path: Path, variant: str, table: Table) -> Said:
    if table.family is None:
        raise PredictionsError(
            "texts need the family that answers them",
            where=path,
            hint="sluice simulate FAMILY --mix FILE ...",
        )
    texts = read_labelled(path, label=None).texts
    loaded = load_variant(table.where, table.family, variant)
    probabilities = softmax(loaded.logits(texts), loaded.temperature)
    said = probabilities.argmax(axis=1).tolist()
    return [loaded.labels[index] for index in said], np.asarray(probabilities.max(axis=1))
