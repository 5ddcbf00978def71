"""A teacher of which only answers are known: its family has a reference that can be served, and says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from compress.datasets.data import Dataset
from compress.datasets.recorded import RECORDED, Recorded, hash_of, write_recorded
from compress.exploration.search import run_search
from compress.heard import hear, reference_of
from compress.pipeline import run_pipeline
from compress.plan import plan_steps
from compress.recipes.recipe import Recipe, dump_recipe, parse_recipe
from compress.store import Finished
from contract.errors import DataError, RecipeError
from contract.family import Family, read_family
from contract.policy import read_policy
from runtime.load import check_family_runs, load_variant
from serve.control.bootstrap import assign
from serve.settings.gateway import Settings
from sluicegate.main import cli
from tests.compress.conftest import toy_texts

DOCS = Path(__file__).parents[2] / "docs" / "teachers.md"
TARGET = {"calls": 20, "seconds": 0.1}
STUDENT = {"name": "s", "kind": "distil", "parent": "teacher", "layers": [0]}
LINEAR = {"name": "linear", "kind": "linear", "parent": "teacher", "bits": 12}


def write_mail(folder: Path) -> None:
    """Write labelled texts, unlabelled ones, and a teacher's answers to most of them, under its own names."""
    rows = toy_texts(420)
    said = {"sport": "SPORT", "tech": "TECH", "money": "money"}
    lines = [f"{text},{label}\n" for text, label in rows[:300]]
    (folder / "mail.csv").write_text("text,label\n" + "".join(lines))
    (folder / "more.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in rows[300:400]))
    asked = [f"{text},{said[label] if row % 10 else ''}\n" for row, (text, label) in enumerate(rows)]
    (folder / "asked.csv").write_text("text,llm\n" + "".join(asked))


def documented() -> dict[str, Any]:
    """Return the recipe that docs/teachers.md shows."""
    part = DOCS.read_text().split("## A teacher that cannot be run here")[1]
    block = re.search(r"```yaml\n(.*?)```", part, re.DOTALL)
    assert block
    return {**yaml.safe_load(block[1]), "target": TARGET}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the documented recipe, and the family that it makes."""
    folder = tmp_path_factory.mktemp("heard")
    write_mail(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(documented()))
    run = CliRunner().invoke(cli, ["compress", str(folder / "recipe.yaml"), "--out", str(folder / "family")])
    assert run.exit_code == 0, run.output
    return folder


@pytest.fixture(scope="module")
def family(folder: Path) -> Family:
    """That family's manifest."""
    return read_family(folder / "family")


def test_the_documented_recipe_makes_a_family_without_the_teacher(family: Family) -> None:
    """The reference is a variant that is there; what is known of the teacher is said beside it."""
    assert family.names == ("linear",)
    assert family.teacher == "linear"
    assert family.variant("linear").parent is None
    heard = family.heard
    assert heard is not None
    assert heard.name == "teacher"
    assert not heard.deltas
    assert heard.answered["unlabelled"] == (90, 100)
    assert any("texts without an answer" in note for note in heard.notes)
    assert any("20" in note or "18" in note for note in heard.notes if "not in the data" in note)
    assert "42 rows have an empty answer" in heard.notes
    found = family.variant("linear").agreement
    assert found is not None
    assert found.n == heard.n == heard.answered["test"][0]
    assert found.share > 0.8
    check_family_runs(family)


def test_inspect_says_who_stands_in_the_teachers_place(folder: Path) -> None:
    """The table has the share of answers that agree, and a note names the teacher that is not there."""
    run = CliRunner().invoke(cli, ["inspect", str(folder / "family")], env={"COLUMNS": "200"})
    shown = " ".join(run.output.split())
    assert "agrees" in shown
    assert "The teacher (teacher) is not in the family" in shown
    assert "linear stands in its place" in shown
    assert "42 rows have an empty answer" in shown


def test_a_family_of_answers_is_tuned_and_served(tmp_path: Path) -> None:
    """Policies count against the variant in the teacher's place and say so; a gateway takes both."""
    write_mail(tmp_path)
    raw = documented()
    raw["variants"] = [LINEAR, {**LINEAR, "name": "small", "bits": 8, "parent": None}]
    raw["teacher"]["reference"] = "linear"
    family = run_pipeline(parse_recipe(raw, folder=tmp_path), tmp_path / "family")
    assert family.teacher == "linear"
    policy = tmp_path / "policy.json"
    asked = ["tune", str(tmp_path / "family"), "--max-accuracy-drop", "0.3", "--out", str(policy)]
    run = CliRunner().invoke(cli, asked)
    assert run.exit_code == 0, run.output
    shown = " ".join(run.output.split())
    assert "The reference is 'linear': it stands in the place of the teacher 'teacher'" in shown
    found = read_policy(policy)
    assert found.reference == "linear"
    assert found.certificate is not None
    assert found.certificate.stands_for == "teacher"
    settings = Settings(family=str(tmp_path / "family"), policy=str(policy))
    assert assign(settings, tmp_path).folders == (tmp_path / "family",)
    loaded = load_variant(tmp_path / "family", family, family.teacher)
    assert loaded.logits(["the coach of the team"]).shape == (1, 3)


def test_limits_are_against_the_answers_where_every_test_text_has_one(tmp_path: Path) -> None:
    """A student of a teacher that is always right and fully heard is judged against it, reference or not."""
    rows = [f"{text},{label},{label}\n" for text, label in toy_texts(200)]
    (tmp_path / "data.csv").write_text("text,label,llm\n" + "".join(rows))
    raw = {
        "name": "toy", "data": {"file": "data.csv"}, "teacher": {"name": "llm", "answers": {"label": "llm"}},
        "variants": [{**LINEAR, "parent": "llm", "bits": 8, "epochs": 1}], "target": TARGET,
    }  # fmt: skip
    family = run_pipeline(parse_recipe(raw, folder=tmp_path), tmp_path / "family")
    (variant,) = family.judged
    assert family.heard is not None
    assert family.heard.deltas
    assert family.heard.accuracy == 1.0
    assert variant.agreement is not None
    assert variant.accuracy_delta is not None
    assert variant.accuracy_delta == pytest.approx(variant.agreement.share - 1)
    assert bool(variant.failed_limits) == (variant.accuracy_delta <= -0.03)


def test_a_student_from_other_weights_learns_the_answers(weights_folder: Path, tmp_path: Path) -> None:
    """`distil` with `weights` of its own needs no network as its teacher; the length is the recipe's."""
    write_mail(tmp_path)
    raw = documented()
    raw["teacher"]["max_length"] = 12
    learning = {"epochs": 1, "learning_rate": 0.003, "precision": "fp32"}
    raw["variants"] = [{**STUDENT, "name": "student", "weights": str(weights_folder), "training": learning}]
    family = run_pipeline(parse_recipe(raw, folder=tmp_path), tmp_path / "family")
    assert family.teacher == "student"
    assert family.variant("student").kind == "distilled"
    assert family.encoders[family.variant("student").encoder].max_length == 12
    assert family.variant("student").agreement is not None


def test_changed_answers_are_read_again_and_nothing_else(tmp_path: Path) -> None:
    """Answers in the data's own file belong to the teacher's step: the data step gives what it gave."""
    write_mail(tmp_path)
    recipe = parse_recipe(documented(), folder=tmp_path)
    (teacher,) = [step for step in plan_steps(recipe) if step.name == "teacher"]
    (tmp_path / "asked.csv").write_text((tmp_path / "asked.csv").read_text() + "one more,money\n")
    (again,) = [step for step in plan_steps(recipe) if step.name == "teacher"]
    assert teacher.outside != again.outside
    assert teacher.config == again.config
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize("missing", ["asked.csv", "mail.csv", "more.csv"])
def test_files_that_are_not_there_are_told_with_the_plan(missing: str, tmp_path: Path) -> None:
    """A dry run names a missing file of answers or of data, before any step is run."""
    write_mail(tmp_path)
    (tmp_path / missing).unlink()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(documented()))
    asked = ["compress", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "family"), "--dry-run"]
    run = CliRunner().invoke(cli, asked)
    assert isinstance(run.exception, DataError)
    assert f"{missing}: there is no such file" in str(run.exception)


@pytest.mark.parametrize(
    "answers", [{"label": "label"}, "mail.csv", {"file": "./mail.csv", "label": "label"}]
)
def test_true_labels_are_no_teachers_answers(answers: Any, tmp_path: Path) -> None:
    """The data's own labels, from the data or named as a file of answers, are refused when planned."""
    write_mail(tmp_path)
    with pytest.raises(RecipeError, match="'label' holds the true labels"):
        plan(changed(teacher={"answers": answers}), tmp_path)


def test_labels_of_unlabelled_texts_may_be_a_teachers(tmp_path: Path) -> None:
    """The labels of an `unlabelled` source are not read as true, so they may be what a teacher said."""
    write_mail(tmp_path)
    answers = {"file": "more.csv", "label": "label"}
    assert plan(changed(teacher={"answers": answers}), tmp_path)


def heard_of(folder: Path, answers: dict[str, list[float]], labels: tuple[str, ...]) -> Finished:
    """Return a finished step that has recorded logits by text."""
    given = {hash_of(text): np.array(values, "f4") for text, values in answers.items()}
    write_recorded(folder / RECORDED, Recorded(labels, given))
    return Finished("llm", "k", folder, {}, {"answered": {}, "notes": ["said"]}, {})


def test_an_answer_of_two_likeliest_labels_is_none(tmp_path: Path) -> None:
    """Which of two equal labels stands first decides nothing: such an answer is not counted, and said."""
    tie = [np.log(0.5), np.log(0.5)]
    made = heard_of(tmp_path, {"a": [0.0, 1.0], "b": tie, "c": [2.0, 0.0]}, ("neg", "pos"))
    texts = ("a", "b", "c")
    test = Dataset(("neg", "pos"), texts, ("pos", "neg", "pos"), ("test",) * 3, ((),) * 3)
    found = hear(made, test, "small stands in")
    assert found.said.tolist() == [1, -1, 0]
    assert (found.record.n, found.record.accuracy, found.record.deltas) == (2, 0.5, False)
    assert found.record.notes == (
        "said", "small stands in", "answers to 1 test texts have two likeliest labels and count as none",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("costs", "elected", "words"),
    [
        (
            {"linear": 0.026, "wide": 0.0235},
            "wide",
            "the largest of linear, wide, whose costs are within 20%",
        ),
        (
            {"linear": 0.0235, "wide": 0.026},
            "wide",
            "the largest of linear, wide, whose costs are within 20%",
        ),
        ({"linear": 0.04, "wide": 0.02}, "linear", "it is the dearest; wide costs 50% less"),
    ],
)
def test_noise_of_a_measurement_does_not_elect_the_stand_in(
    costs: dict[str, float], elected: str, words: str, tmp_path: Path
) -> None:
    """Among variants that cost as much the largest stands in, and it is said by how little it was chosen."""
    recipe = parse_recipe(changed(variants=[LINEAR, {**LINEAR, "name": "wide"}]), folder=tmp_path)
    finished = {}
    for size, name in enumerate(costs, start=1):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m").write_bytes(bytes(size))
        finished[name] = Finished(name, "k", tmp_path / name, {}, {"artifact": "m"}, {})
        measured = {"usd_per_1k": costs[name]}
        finished[f"{name}.measure"] = Finished(f"{name}.measure", "k", tmp_path, {}, measured, {})
    found, why = reference_of(recipe, list(costs), finished)
    assert found == elected
    assert (
        why == f"{elected} stands in the teacher's place: {words if 'dearest' in words else 'it is ' + words}"
    )


def test_answers_to_other_texts_are_refused(tmp_path: Path) -> None:
    """Where no text to learn from has an answer, the teacher's step says so."""
    write_mail(tmp_path)
    (tmp_path / "asked.csv").write_text("text,llm\nsomething else,money\n")
    with pytest.raises(DataError, match="has an answer among the 1 that were read"):
        run_pipeline(parse_recipe(documented(), folder=tmp_path), tmp_path / "family")


def changed(**keys: Any) -> dict[str, Any]:
    """Return the documented recipe with other variants or keys."""
    return {**documented(), **keys}


def plan(raw: dict[str, Any], folder: Path) -> tuple[Any, ...]:
    """Return the steps of a recipe."""
    recipe: Recipe = parse_recipe(raw, folder=folder)
    return plan_steps(recipe)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"name": "q", "kind": "quantize", "parent": "teacher"}, "'quantize' needs a network as its parent"),
        ({"name": "p", "kind": "prune", "parent": "teacher"}, "'prune' needs a network"),
        ({"name": "c", "kind": "cnn", "parent": "teacher"}, "'cnn' needs a network"),
        ({"name": "v", "kind": "vocabulary", "parent": "teacher"}, "'vocabulary' needs a network"),
        (
            {"name": "l", "kind": "latency", "parent": "teacher", "speed_ups": [2]},
            "'latency' needs a network",
        ),
        (STUDENT, "starts from layers of its parent"),
        (
            {**STUDENT, "weights": "random", "hidden": 8, "heads": 1, "neurons": 8},
            "`weights: random` reads texts as its parent does",
        ),
        (
            {**STUDENT, "weights": "somewhere", "distillation": {"hidden_weight": 1}},
            "imitate what is inside",
        ),
        ({**LINEAR, "augment": {"copies": 1}}, "`augment` makes texts that only its teacher could answer"),
    ],
)
def test_what_needs_the_teachers_network_is_refused_when_planned(
    part: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """The variant, what it would need, and what works instead are named before anything is run."""
    with pytest.raises(RecipeError, match=re.escape(words)) as told:
        plan(changed(variants=[part]), tmp_path)
    assert "only answers are known" in str(told.value)
    assert "learn from them with `linear`" in str(told.value)


def test_a_search_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """The flag alone asks for what a `search` part asks for: nothing is run until that is found out."""
    write_mail(tmp_path)
    recipe = parse_recipe(documented(), folder=tmp_path)
    with pytest.raises(RecipeError, match="`search` takes its teacher apart"):
        run_search(recipe, tmp_path / "family", minutes=1)
    assert list((tmp_path / "family").rglob("*.parquet")) == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"variants": []}, "there is no variant to learn them"),
        ({"search": {}}, "`search` takes its teacher apart"),
        ({"teacher": {"name": "teacher"}}, "give `weights`, a model to run here, or `answers`"),
        ({"teacher": {"answers": "a.csv", "weights": "w"}}, "one of them"),
        ({"teacher": {"answers": "a.csv", "training": {"epochs": 1}}}, "of answers nothing is trained"),
        ({"teacher": {"answers": "a.csv", "reference": "none"}}, "'none', which is no variant"),
        ({"teacher": {"weights": "w", "reference": "linear"}}, "`reference` goes with `answers`"),
        ({"teacher": {"answers": {}}}, "name the column"),
        ({"teacher": {"answers": {"label": "a", "logits": {"a": "b"}}}}, "`label` or `logits`, one of them"),
        ({"teacher": {"answers": {"label": "a", "certainty": 0.5}}}, "greater than 0.5"),
        ({"teacher": {"answers": {"logits": "a"}}}, "`order` goes with one column of lists"),
        ({"teacher": {"answers": {"logits": "a", "order": [True]}}}, "in quotes"),
        ({"data": {"input": "image", "file": "d"}, "variants": []}, "answers to texts, not to images"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(
    keys: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Keys that do not go together are named."""
    with pytest.raises(RecipeError, match=re.escape(words)):
        plan(changed(**keys), tmp_path)
