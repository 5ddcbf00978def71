"""The recipe of a proxy: collected answers as a remote teacher's, so that nothing is asked again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from contract.collected import Question
from contract.errors import EnvironmentProblem, InputError, RemoteFailure
from contract.files import write_text
from contract.remote import parse_remote
from runtime.remote.client import SyncClient
from sluicegate.proxy.moves import SHARES
from sluicegate.proxy.plan import Plan
from tables.collected.store import CollectedStore
from tables.collected.training import TrainingRows, not_learnable, training_rows, write_training

TEACHER = "upstream"
DATA, RECIPE, FAMILY, POLICY = "rows.parquet", "recipe.yaml", "family", "policy.json"
_OF_RECIPES = ("max_usd", "ask")


def prepare(plan: Plan, sha256: str, folder: Path) -> None:
    """Write data and recipe of a training, unless they are there already.

    Raises:
        InputError: nothing can learn from what was collected.
    """
    if (folder / RECIPE).exists():
        return
    rows = training_rows(CollectedStore.open(plan.collected), sha256)
    if reason := not_learnable(rows.question):
        raise InputError(reason)
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
            "remote": remote_of(plan, rows.question, rows.model),
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


def remote_of(plan: Plan, question: Question, model: str = "") -> dict[str, Any]:
    """Return the upstream as a remote model that is asked this question, as applications ask it.

    Args:
        plan: of the proxy.
        question: that is asked.
        model: that is asked; empty: the one that was asked first.
    """
    upstream = plan.upstream
    described = {label: question.descriptions.get(label) for label in question.labels}
    found: dict[str, Any] = {
        "form": "decisions",
        "url": upstream.url,
        "model": model or question.model,
        "instructions": question.instructions,
        "labels": described,
        "timeout_s": upstream.timeout_s,
        "max_concurrency": upstream.places,
        "usd_per_call": upstream.usd_per_1k / 1000,
        "max_usd": 0,
        "ask": False,
    }
    if upstream.key_env is not None:
        found["credentials"] = {"env": upstream.key_env}
    return found


def why_no_answer(plan: Plan, sha256: str) -> str:
    """Return why the upstream does not answer one collected text, asked as a stage will ask; empty: it does.

    It is paid for like any other question. Keys that clients bring are not at hand for a stage.

    Raises:
        DataError: no text was kept.
    """
    rows = training_rows(CollectedStore.open(plan.collected), sha256)
    told = {
        name: value
        for name, value in remote_of(plan, rows.question, rows.model).items()
        if name not in _OF_RECIPES
    }
    try:
        client = SyncClient(parse_remote(told), rows.question.labels, max_concurrency=1)
    except (EnvironmentProblem, InputError) as problem:
        return f"the upstream cannot be asked: {problem.message}"
    try:
        client.ask(rows.texts[-1:], retries=1)
    except RemoteFailure as problem:
        if problem.kind == "declined":
            return ""
        hint = "; --api-key-env says where its key is" if plan.upstream.key_env is None else ""
        return f"the upstream does not answer a stage: {problem}{hint}"
    finally:
        client.close()
    return ""


def asks_otherwise(plan: Plan, folder: Path) -> str:
    """Return in what a round asks the upstream otherwise than the plan does; empty where it does not."""
    if not (folder / RECIPE).exists():
        return ""
    remote = yaml.safe_load((folder / RECIPE).read_text("utf-8"))["teacher"]["remote"]
    upstream = plan.upstream
    now = {
        "--upstream": (remote["url"], upstream.url),
        "--usd-per-1k": (remote["usd_per_call"], upstream.usd_per_1k / 1000),
        "--api-key-env": ((remote.get("credentials") or {}).get("env"), upstream.key_env),
    }
    return ", ".join(name for name, (before, after) in now.items() if before != after)


def forget(folder: Path, *, wholly: bool = False) -> None:
    """Remove a round's copies of texts that nothing needs any more; wholly: its family too."""
    (folder / DATA).unlink(missing_ok=True)
    shutil.rmtree(folder / FAMILY if wholly else folder / FAMILY / ".steps", ignore_errors=True)
