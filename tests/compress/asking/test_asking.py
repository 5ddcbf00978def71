"""A recipe whose teacher stands behind HTTP: what is asked, what is kept, and when it stops."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from compress.pipeline import run_pipeline
from compress.recipes.recipe import Recipe, dump_recipe, parse_recipe
from contract.errors import DataError, EnvironmentProblem, RecipeError, SluiceError
from contract.family import Family
from runtime.remote.kept import key_of
from sluicegate.main import cli
from tests.compress.asking.toy_teacher import LABELS, REFUSED, ToyTeacher, remote
from tests.compress.conftest import toy_texts
from tests.support.known_model import Fault

TARGET = {"calls": 20, "seconds": 0.1}
LINEAR = {"name": "linear", "kind": "linear", "parent": "teacher", "bits": 10, "epochs": 2}
N = 120


def write_texts(folder: Path, n: int = N, *more: str) -> None:
    """Write n toy texts without labels."""
    texts = [*(text for text, _ in toy_texts(n)), *more]
    (folder / "texts.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts))


def raw_of(url: str, **changes: Any) -> dict[str, Any]:
    """Return a recipe of unlabelled texts, `changes` being of its remote teacher."""
    return {
        "name": "toy",
        "data": {"file": "texts.csv", "label": None},
        "teacher": {"remote": remote(url, **changes)},
        "variants": [LINEAR],
        "target": TARGET,
    }


def recipe_of(folder: Path, url: str, **changes: Any) -> Recipe:
    """Return that recipe."""
    return parse_recipe(raw_of(url, **changes), folder=folder)


def made(folder: Path, url: str, **changes: Any) -> Family:
    """Return the family of that recipe, as far as its teacher goes."""
    return run_pipeline(recipe_of(folder, url, **changes), folder / "family", only="teacher")


def run(*arguments: str) -> Any:
    """Return what the command says."""
    return CliRunner().invoke(cli, [*arguments], env={"COLUMNS": "200"})


def test_a_dry_run_says_what_asking_costs_and_writes_nothing(
    teacher: ToyTeacher, url: str, tmp_path: Path
) -> None:
    """Texts, answers that are there, USD at most and time at the rate; nobody is asked."""
    write_texts(tmp_path)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(raw_of(url, max_per_s=10)))
    asked = ("compress", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "family"), "--dry-run")
    shown = " ".join(run(*asked).output.split())
    assert f"teacher: {N} of {N} texts to ask: at most 0.6 USD, 0.00 of 10.00 are spent; about 12 s" in shown
    (step,) = [s for s in json.loads(run(*asked, "--json").stdout) if s["step"] == "teacher"]
    assert step["asking"] == {
        "texts": N, "given": 0, "kept": 0, "to_ask": N, "usd_likely": pytest.approx(0.6),
        "usd_at_most": pytest.approx(0.6), "spent_usd": 0, "max_usd": 10, "seconds": 12,
    }  # fmt: skip
    assert not teacher.asked
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml", "texts.csv"]


def test_the_limit_stops_it_and_a_higher_one_goes_on_from_there(
    teacher: ToyTeacher, url: str, tmp_path: Path
) -> None:
    """No answer beyond the money is asked for; what was paid for is kept, and not asked again."""
    write_texts(tmp_path)
    with pytest.raises(SluiceError) as told:
        made(tmp_path, url, max_usd=0.2)
    assert len(teacher.asked) == 40
    words = str(told.value)
    assert "0.2 of 0.2 USD are spent" in words
    assert f"40 of {N} texts have an answer, which is kept" in words
    assert "max_usd: 0.6 is enough for all, and only the 80 missing are asked" in words
    family = made(tmp_path, url, max_usd=0.6)
    assert len(teacher.asked) == N
    assert family.asked is not None
    assert family.asked.usd == pytest.approx(0.6)


def test_what_is_there_can_be_gone_on_with(teacher: ToyTeacher, url: str, tmp_path: Path) -> None:
    """`ask: false` makes the family of the answers that the money bought, and says what is left out."""
    write_texts(tmp_path)
    with pytest.raises(SluiceError, match=r"teacher\.remote\.ask: false"):
        made(tmp_path, url, max_usd=0.5)
    family = made(tmp_path, url, max_usd=0.5, ask=False)
    assert len(teacher.asked) == 100
    assert family.asked is not None
    assert sum(n for n, _ in family.asked.answered.values()) == 100
    assert sum(split.n for split in family.splits.values()) == 100


def test_a_killed_run_loses_what_was_in_flight_at_most(teacher: ToyTeacher, url: str, tmp_path: Path) -> None:
    """After SIGKILL the same command asks for what is missing, and for nothing else."""
    write_texts(tmp_path)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(raw_of(url)))
    teacher.stuck_after = 50
    arguments = ["compress", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "family"), "--only", "teacher"]
    with subprocess.Popen([sys.executable, "-m", "sluicegate", *arguments]) as process:
        assert teacher.stuck.wait(90), "it did not ask"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    (lines,) = (tmp_path / ".asked").glob("*.jsonl")
    kept = {json.loads(line).get("text") for line in lines.read_bytes().splitlines()} - {None}
    assert 50 - 4 <= len(kept) <= 50
    teacher.stuck_after = None
    teacher.go_on.set()
    assert run(*arguments).exit_code == 0
    times = Counter(key_of(request.body["input"]) for request in teacher.asked)
    assert len(times) == N
    assert {times[text] for text in kept} == {1}


def test_other_recipes_share_what_was_answered(teacher: ToyTeacher, url: str, tmp_path: Path) -> None:
    """Another family of the same question asks for its new texts alone, another address where it moved."""
    for name, n in (("a", 120), ("b", 150)):
        (tmp_path / name).mkdir()
        write_texts(tmp_path / name, n)
    cache = str(tmp_path / "answers")
    made(tmp_path / "a", url, cache=cache)
    moved = url.replace("127.0.0.1", "localhost")
    made(tmp_path / "b", moved, cache=cache, answers_of=f"{url}/v1")
    assert len(teacher.asked) == 150
    made(tmp_path / "b", url, cache=cache, instructions="Which is it?")
    assert len(teacher.asked) == 300
    made(tmp_path / "b", moved, cache=cache)
    assert len(teacher.asked) == 450


def test_what_is_not_answered_is_counted_named_and_left_out(
    teacher: ToyTeacher, url: str, tmp_path: Path
) -> None:
    """A refusal, a label that was not offered and an error each leave a text out, and the family says so."""
    write_texts(tmp_path, N, REFUSED)
    stranger = {"answers": [{"type": "choice", "choice": "weather"}]}
    teacher.faults.extend([Fault(500), Fault(200, body=json.dumps(stranger).encode())])
    family = made(tmp_path, url, max_concurrency=1, retries=0, errors=0.02)
    asked = family.asked
    assert asked is not None
    assert asked.declined == {"it refuses to answer": 1, "it names no label that was offered": 1}
    assert asked.errors == {"broken (HTTP 500)": 1}
    assert sum(split.n for split in family.splits.values()) == N - 2
    shown = " ".join(run("inspect", str(tmp_path / "family")).output.split())
    assert (
        f"The teacher (teacher) is toy at {url}/v1: it answered {N - 2} of {N + 1} texts for 0.6 USD" in shown
    )
    assert "2 got no label; 1 got no reply" in shown


def test_too_many_errors_end_it_and_nothing_is_lost(teacher: ToyTeacher, url: str, tmp_path: Path) -> None:
    """Beyond the share that may fail the step stops with the reason; the next run asks for the rest."""
    write_texts(tmp_path)
    teacher.faults.extend([Fault(500)] * 3)
    with pytest.raises(SluiceError, match=r"3 texts got no reply, the last one: HTTP 500") as told:
        made(tmp_path, url, max_concurrency=1, retries=0, errors=0.02)
    assert "run the same command again: only what is missing is asked" in str(told.value)
    made(tmp_path, url, max_concurrency=1, retries=0, errors=0.02)
    assert len(teacher.asked) == N + 3


def test_a_busy_endpoint_is_waited_for(teacher: ToyTeacher, url: str, tmp_path: Path) -> None:
    """429 with Retry-After costs time and no answer."""
    write_texts(tmp_path)
    teacher.faults.extend([Fault(429, headers={"retry-after": "0.1"})] * 5)
    family = made(tmp_path, url)
    assert family.asked is not None
    assert (family.asked.errors, len(teacher.asked)) == ({}, N + 5)


@pytest.mark.parametrize(("form", "soft"), [("chat", N), ("oip", N), ("tool", 0)])
def test_every_form_gives_answers(
    teacher: ToyTeacher, url: str, tmp_path: Path, form: str, soft: int
) -> None:
    """Log-probabilities of a chat and tensors of a server are soft answers; the call of a tool is a label."""
    write_texts(tmp_path)
    options: dict[str, Any] = {"form": form}
    if form == "tool":
        options = {"form": "chat", "chat": {"constrain": "tool", "logprobs": False}}
    asked = made(tmp_path, url, **options).asked
    assert asked is not None
    assert sum(n for n, _ in asked.answered.values()) == N
    assert asked.soft == soft


def test_texts_without_a_label_column_are_told_what_to_write(url: str, tmp_path: Path) -> None:
    """Whoever leaves `label: null` out learns of it."""
    write_texts(tmp_path)
    raw = raw_of(url)
    raw["data"] = {"file": "texts.csv"}
    with pytest.raises(DataError, match=r"data\.label: null where nobody has labelled the texts"):
        run_pipeline(parse_recipe(raw, folder=tmp_path), tmp_path / "family")


def test_a_key_is_used_and_never_written(
    teacher: ToyTeacher, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named by its variable; without it nothing is asked, and no file of the family or cache has it."""
    write_texts(tmp_path)
    teacher.key = "a-secret-key"
    credentials = {"env": "TOY_TEACHER_KEY"}
    with pytest.raises(EnvironmentProblem, match="TOY_TEACHER_KEY is not set"):
        made(tmp_path, url, credentials=credentials)
    monkeypatch.setenv("TOY_TEACHER_KEY", "another")
    with pytest.raises(SluiceError, match="HTTP 401"):
        made(tmp_path, url, credentials=credentials, max_concurrency=1)
    monkeypatch.setenv("TOY_TEACHER_KEY", teacher.key)
    made(tmp_path, url, credentials=credentials)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if teacher.key.encode() in path.read_bytes()]


def test_answers_from_a_file_are_not_asked_again(teacher: ToyTeacher, url: str, tmp_path: Path) -> None:
    """What was collected elsewhere counts first, soft or as a label alone; the rest is asked."""
    rows = toy_texts(N)
    lines = []
    for place, (text, label) in enumerate(rows[:100]):
        shares = [0.8 if name == label else 0.1 for name in LABELS] if place % 2 else None
        lines.append(json.dumps({"text": text, "label": label, "probabilities": shares}))
    (tmp_path / "collected.jsonl").write_text("\n".join(lines) + "\n")
    write_texts(tmp_path)
    raw = raw_of(url)
    raw["teacher"]["answers"] = {
        "file": "collected.jsonl", "label": "label", "probabilities": "probabilities", "order": list(LABELS),
    }  # fmt: skip
    family = run_pipeline(parse_recipe(raw, folder=tmp_path), tmp_path / "family")
    assert len(teacher.asked) == 20
    assert family.asked is not None
    assert (family.asked.given, family.asked.soft) == (100, 20)
    raw["teacher"]["remote"]["ask"] = False
    raw["data"]["file"] = "collected.jsonl"
    made_offline = run_pipeline(parse_recipe(raw, folder=tmp_path), tmp_path / "offline")
    assert len(teacher.asked) == 20
    assert made_offline.names == ("teacher", "linear")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("teacher.remote.max_usd", None, "`max_usd` says how much"),
        ("teacher.remote.labels", {}, "names all that there are"),
        ("teacher.remote.labels", ["a", "a"], "a label is named twice"),
        ("teacher.remote.magic", 1, "there is no such key"),
        ("teacher.remote.certainty", 0.5, "greater than 0.5"),
        ("teacher.weights", "w", "one of them"),
        ("teacher", {"answers": {"label": "llm"}}, "needs a `teacher.remote`"),
        ("teacher.reference", "linear", "`reference` goes with `answers`"),
        ("data.slices", {"x": {"label": "sport"}}, "`data.slices` by `label` need labels"),
        ("variants.0.name", "data.texts", "meaning of its own"),
    ],
)
def test_recipes_that_cannot_be_asked_are_refused(path: str, value: Any, said: str) -> None:
    """Each broken rule is named when the recipe is read."""
    raw = json.loads(json.dumps(raw_of("http://127.0.0.1:9")))
    place: Any = raw
    *folders, last = path.split(".")
    for name in folders:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[last] = value
    with pytest.raises(RecipeError, match=said):
        parse_recipe(raw)


def test_a_recipe_is_written_as_it_was_read(tmp_path: Path) -> None:
    """Its YAML makes the same recipe again."""
    recipe = recipe_of(tmp_path, "http://127.0.0.1:9", labels={"a": "what a means", "b": None})
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), folder=tmp_path) == recipe
