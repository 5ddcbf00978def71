"""The recipe of a proxy: collected answers as a remote teacher's, so that nothing is asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from contract.collected import Question
from contract.errors import InputError
from contract.files import write_text
from sluicegate.proxy.moves import SHARES
from sluicegate.proxy.plan import Plan
from tables.collected.store import CollectedStore
from tables.collected.training import TrainingRows, training_rows, write_training

TEACHER = "upstream"
DATA, RECIPE, FAMILY, POLICY = "rows.parquet", "recipe.yaml", "family", "policy.json"


def prepare(plan: Plan, sha256: str, folder: Path) -> None:
    """Write data and recipe of a training, unless they are there already.

    Raises:
        InputError: nothing can learn from what was collected.
    """
    if (folder / RECIPE).exists():
        return
    rows = training_rows(CollectedStore.open(plan.collected), sha256)
    if len({*rows.answers.tolist()}) < 2:
        only = rows.question.labels[int(rows.answers[0])]
        raise InputError(f"all {len(rows):,} texts were answered {only!r}: there is nothing to learn")
    write_training(folder / DATA, rows)
    write_text(folder / RECIPE, yaml.safe_dump(recipe_of(plan, rows), sort_keys=False, allow_unicode=True))


def recipe_of(plan: Plan, rows: TrainingRows) -> dict[str, Any]:
    """Return the recipe: the upstream as teacher and reference, a linear model, and a student if wanted."""
    variants: list[dict[str, Any]] = [{"name": "linear", "kind": "linear", "parent": TEACHER}]
    if plan.student:
        student = {
            "name": "student",
            "kind": "distil",
            "parent": TEACHER,
            "weights": plan.student_weights,
            "layers": [0, 5],
            "training": {"epochs": 3, "learning_rate": 4.0e-4},
        }
        variants += [student, {"name": "student-int8", "kind": "quantize", "parent": "student"}]
    return {
        "schema": 1,
        "name": plan.family,
        "seed": plan.seed,
        "data": {"file": DATA, "label": None, "shares": SHARES},
        "teacher": {
            "name": TEACHER,
            "remote": remote_of(plan, rows.question),
            "answers": {
                "file": DATA,
                "label": "answer",
                "probabilities": "probabilities",
                "order": list(rows.question.labels),
            },
        },
        "variants": variants,
        "target": {"calls": 200, "seconds": 1},
    }


def remote_of(plan: Plan, question: Question) -> dict[str, Any]:
    """Return the upstream as a remote model that is asked this question, as applications ask it."""
    upstream = plan.upstream
    described = {label: question.descriptions.get(label) for label in question.labels}
    found: dict[str, Any] = {
        "form": "decisions",
        "url": upstream.url,
        "model": question.model,
        "instructions": question.instructions,
        "labels": described,
        "timeout_s": upstream.timeout_s,
        "usd_per_call": upstream.usd_per_1k / 1000,
        "max_usd": 0,
        "ask": False,
    }
    if upstream.key_env is not None:
        found["credentials"] = {"env": upstream.key_env}
    return found
