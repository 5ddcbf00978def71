"""The whole path: texts without labels, a teacher behind HTTP, students, and a policy that is certified."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from compress.pipeline import run_pipeline
from compress.recipes.recipe import parse_recipe
from contract.family import read_family
from contract.policy import read_policy
from contract.predictions import UNLABELLED
from contract.remote import RemoteModel
from sluicegate.main import cli
from tables.predictions import read_predictions
from tests.compress.asking.toy_teacher import LABELS, ToyTeacher, remote
from tests.compress.conftest import toy_texts, write_csv

DOCS = Path(__file__).parents[3] / "docs" / "teachers.md"
TARGET = {"calls": 20, "seconds": 0.1}
LEARNING = {"epochs": 4, "learning_rate": 0.003, "precision": "fp32"}


def students(weights: Path) -> list[dict[str, Any]]:
    """Return a linear stage and a tiny network that learn a teacher's answers."""
    tiny = {"name": "tiny", "kind": "distil", "parent": "teacher", "layers": [0], "weights": str(weights)}
    return [
        {"name": "linear", "kind": "linear", "parent": "teacher", "bits": 12},
        tiny | {"training": LEARNING},
    ]


def run(*arguments: str) -> Any:
    """Return what the command says."""
    return CliRunner().invoke(cli, [*arguments], env={"COLUMNS": "220"})


@pytest.fixture(scope="module")
def folder(
    serving: tuple[ToyTeacher, str], weights_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with texts, a recipe and its family."""
    teacher, url = serving
    folder = tmp_path_factory.mktemp("asked")
    (folder / "texts.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in toy_texts(600)))
    recipe = {
        "name": "toy", "data": {"file": "texts.csv", "label": None}, "variants": students(weights_folder),
        "teacher": {"max_length": 24, "remote": remote(url)}, "target": TARGET,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    made = run("compress", str(folder / "recipe.yaml"), "--out", str(folder / "family"))
    assert made.exit_code == 0, made.output
    assert len(teacher.asked) == 600
    assert "600 of 600 texts to ask: at most 3.00 USD" in " ".join(made.stderr.split())
    return folder


def test_the_teacher_is_a_variant_of_kind_remote(folder: Path) -> None:
    """It is the reference; its record tells where and how it is asked, its figures come from the asking."""
    family = read_family(folder / "family")
    assert family.names == ("teacher", "linear", "tiny")
    teacher = family.variant(family.teacher)
    assert (family.teacher, teacher.kind, teacher.runtime) == ("teacher", "remote", "remote")
    record = RemoteModel.model_validate_json((folder / "family" / teacher.artifact.path).read_bytes())
    assert (record.form, record.model, record.max_concurrency) == ("decisions", "toy", 4)
    assert teacher.usd_per_1k == pytest.approx(5.0)
    assert teacher.remote is not None
    assert (teacher.remote.n, teacher.remote.unanswered, teacher.remote.calls) == (600, 0, 600)
    assert teacher.latency_at() is not None
    assert family.truth == "teacher"
    assert teacher.accuracy == 1.0
    assert teacher.training is not None
    assert teacher.training.usd == pytest.approx(3.0)
    asked = family.asked
    assert asked is not None
    assert (asked.model, asked.soft) == ("toy", 600)
    assert asked.usd == pytest.approx(3.0)
    assert asked.seconds > 0
    tiny = family.variant("tiny")
    assert (tiny.kind, tiny.parent) == ("distilled", "teacher")
    assert tiny.accuracy_delta == pytest.approx((tiny.accuracy or 0) - 1)


def test_its_answers_are_in_the_table_and_no_labels_are(folder: Path) -> None:
    """The predictions have the teacher's soft answers to held-out texts, and every label is null."""
    family = read_family(folder / "family")
    table = read_predictions(folder / "family" / "predictions.parquet", labels=family.labels)
    assert (table.label == UNLABELLED).all()
    said = table.variants["teacher"]
    assert said.logits is not None
    assert 0.34 < said.confidence.min() < said.confidence.max() < 1
    assert len(np.unique(said.confidence)) > 2


def test_disagreement_with_the_teacher_is_certified(folder: Path) -> None:
    """Without labels `tune` promises how often answers differ from the teacher's, and calls it that."""
    policy = folder / "policy.json"
    tuned = run(
        "tune",
        str(folder / "family"),
        "--max-disagreement",
        "0.1",
        "--out",
        str(policy),
        "--confidence",
        "0.9",
    )
    assert tuned.exit_code == 0, tuned.output
    found = read_policy(policy)
    assert (found.status, found.reference) == ("certified", "teacher")
    certificate = found.certificate
    assert certificate is not None
    assert (certificate.metric, certificate.epsilon) == ("disagreement", 0.1)
    assert "disagreement" in certificate.method
    assert set(certificate.variants) == {stage.variant for stage in found.stages} | {"teacher"}
    assert found.expected.accuracy is None
    assert found.expected.usd_per_1k is not None
    assert found.expected.usd_per_1k < 5.0
    assert "The reference is 'teacher': the family's teacher" in " ".join(tuned.output.split())
    simulated = run("simulate", str(folder / "family"), "--policy", str(policy), "--json")
    assert simulated.exit_code == 0, simulated.output
    assert json.loads(simulated.stdout)["accuracy"] is None


def test_a_drop_asked_for_without_labels_is_a_disagreement_too(folder: Path) -> None:
    """The certificate names what it is about, which bounds the drop."""
    policy = folder / "drop.json"
    tuned = run("tune", str(folder / "family"), "--max-accuracy-drop", "0.1", "--out", str(policy))
    assert tuned.exit_code == 0, tuned.output
    certificate = read_policy(policy).certificate
    assert certificate is not None
    assert certificate.metric == "disagreement"
    refused = run("tune", str(folder / "family"), "--min-accuracy", "0.9", "--out", str(policy))
    assert refused.exit_code != 0
    assert "--max-disagreement" in str(refused.exception)


def test_inspect_and_report_say_what_is_counted_against_what(folder: Path) -> None:
    """Nobody takes agreement with a teacher for accuracy."""
    for command in (("inspect", str(folder / "family")),):
        shown = " ".join(run(*command).output.split())
        assert (
            "The data have no labels: accuracy, macro-F1 and points are counted against the answers" in shown
        )
    report = run("report", str(folder / "family"), "--out", str(folder / "report.md"))
    assert report.exit_code == 0, report.output
    told = (folder / "report.md").read_text()
    assert "The data have no labels" in told
    assert "USD paid to others" in told


def test_nothing_is_asked_or_made_again(folder: Path, serving: tuple[ToyTeacher, str]) -> None:
    """The same recipe on the same data takes every step as it is."""
    before = len(serving[0].asked)
    again = run(
        "compress", str(folder / "recipe.yaml"), "--out", str(folder / "family"), "--dry-run", "--json"
    )
    assert all(step["done"] for step in json.loads(again.stdout))
    assert len(serving[0].asked) == before


def test_the_documented_path_works(
    teacher: ToyTeacher, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe and the commands of docs/teachers.md, at the address of a server that is there."""
    part = DOCS.read_text().split("## A teacher behind HTTP")[1]
    recipe = re.search(r"```yaml\n(.*?)```", part, re.DOTALL)
    commands = re.findall(r"^    sluice (.*)$", part.split("| `remote:` |")[0], re.MULTILINE)
    assert recipe
    assert len(commands) == 3
    (tmp_path / "texts.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in toy_texts(500)))
    written = recipe[1].replace("https://models.example", url)
    (tmp_path / "mail.yaml").write_text(f"{written}target: {TARGET}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELS_KEY", "key")
    teacher.key = "key"
    told = []
    for command in commands:
        done = run(*command.split())
        assert done.exit_code == 0, done.output
        told.append(" ".join(done.output.split()))
    assert "500 of 500 texts to ask: at most 0.15 USD, 0.00 of 5.00 are spent" in told[0]
    assert len(teacher.asked) == 500
    policy = read_policy(tmp_path / "policy.json")
    assert (policy.reference, policy.status) == ("teacher", "certified")


def test_with_labels_the_drop_is_certified(teacher: ToyTeacher, url: str, tmp_path: Path) -> None:
    """Where the data have labels the teacher is judged by them, and the policy promises the drop from it."""
    rows = toy_texts(400)
    wrong = [
        (text, LABELS[(LABELS.index(label) + (row % 10 == 0)) % 3]) for row, (text, label) in enumerate(rows)
    ]
    write_csv(tmp_path / "data.csv", wrong)
    raw = {
        "name": "toy", "data": {"file": "data.csv"}, "teacher": {"remote": remote(url, labels={})},
        "variants": [{"name": "linear", "kind": "linear", "parent": "teacher", "bits": 12}], "target": TARGET,
    }  # fmt: skip
    family = run_pipeline(parse_recipe(raw, folder=tmp_path), tmp_path / "family")
    assert family.truth == "labels"
    own = family.variant("teacher").accuracy
    assert own is not None
    assert 0.8 < own < 1.0
    tuned = run(
        "tune", str(tmp_path / "family"), "--max-accuracy-drop", "0.15", "--out", str(tmp_path / "p.json")
    )
    assert tuned.exit_code == 0, tuned.output
    certificate = read_policy(tmp_path / "p.json").certificate
    assert certificate is not None
    assert (certificate.metric, certificate.targets[0].method) == ("accuracy_drop", "exact trinomial")
