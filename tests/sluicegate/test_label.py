"""`sluice label`: rows go out as CSV, come back with labels, and certify a policy."""

from __future__ import annotations

import csv
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from contract.costs import Cost, write_costs
from contract.errors import SluiceError
from contract.predictions import UNLABELLED, Predictions, write_predictions
from runtime.fake_family import write_fake_family
from sluicegate.label_cmd import command
from tests.router.conftest import make_world

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def truth() -> Predictions:
    """Rows whose labels are known to the test alone."""
    return make_world(3000, skills=(0.85, 0.87, 0.9))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, truth: Predictions) -> list[str]:
    """Predictions without labels, and costs."""
    folder = tmp_path_factory.mktemp("table")
    blank = replace(truth, label=np.full(len(truth), UNLABELLED))
    write_predictions(folder / "p.parquet", blank)
    write_costs(folder / "c.json", {"cheap": Cost(1.0), "middle": Cost(9.0), "large": Cost(10.0)})
    return ["--predictions", str(folder / "p.parquet"), "--costs", str(folder / "c.json")]


def label(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(command, [str(a) for a in arguments])


@pytest.fixture
def drawn(files: list[str], tmp_path: Path) -> Path:
    """The rows to label, as the command writes them."""
    out = tmp_path / "labels.csv"
    done = label(*files, "--budget", "80", "--max-accuracy-drop", "0.02", "--out", out)
    assert done.exit_code == 0, done.output
    return out


def changed(path: Path, change: Callable[[Rows], object]) -> Path:
    """Rewrite a CSV after a change of its rows."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def filled(path: Path, truth: Predictions, count: int = 1000) -> Path:
    """Give the first rows their true labels."""

    def fill(rows: Rows) -> None:
        for row in rows[:count]:
            row["label"] = str(truth.labels[truth.label[int(row["row"])]])

    return changed(path, fill)


def test_labels_come_back_as_a_certified_policy(
    files: list[str], drawn: Path, truth: Predictions, tmp_path: Path
) -> None:
    """The policy is written, certified, and the JSON says what more labels would be worth."""
    policy = tmp_path / "policy.json"
    done = label(*files, "--in", filled(drawn, truth), "--policy", policy, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert json.loads(policy.read_text()) == told["policy"]
    assert told["policy"]["status"] == "certified"
    assert told["policy"]["certificate"]["n_labels"] <= 80
    assert told["next"]["expected_saving"] >= told["next"]["saving_now"]


def test_the_explanation_says_what_the_next_labels_are_worth(
    files: list[str], drawn: Path, truth: Predictions, tmp_path: Path
) -> None:
    """In words: how sure, by how many labels, and what the next hundred would bring."""
    done = label(*files, "--in", filled(drawn, truth, 40), "--policy", tmp_path / "p.json")
    assert done.exit_code == 0, done.output
    for words in ("How sure", "The next 100 labels", "40 of"):
        assert words in done.stdout


def test_nothing_certified_is_told_with_the_exit_code_of_a_missed_target(
    files: list[str], drawn: Path, truth: Predictions, tmp_path: Path
) -> None:
    """A drop that no label can prove leaves the reference alone, in a policy that is written all the same."""
    policy = tmp_path / "policy.json"
    done = label(
        *files, "--in", filled(drawn, truth), "--max-accuracy-drop", "0.00001", "--policy", policy
    )  # fmt: skip
    assert isinstance(done.exception, SluiceError)
    assert "certify no threshold" in str(done.exception)
    assert json.loads(policy.read_text())["status"] == "no_safe_threshold"


def _set(index: int, column: str, value: str) -> Callable[[Rows], object]:
    return lambda rows: rows[index].update({column: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set(3, "label", "zebra"), "row 4: the label 'zebra' is not in the label set"),
        (_set(3, "inclusion_probability", ""), "row 4: `inclusion_probability` is missing"),
        (_set(3, "inclusion_probability", "0"), "row 4: `inclusion_probability` is 0"),
        (_set(3, "inclusion_probability", "0.01"), "row 4: `inclusion_probability` is 0.01 and was"),
        (_set(3, "cheap/prediction", ""), "row 4: `cheap/prediction` is None and was"),
        (_set(3, "row", "2999999"), "row 4: row 2999999 of the table was not drawn"),
        (_set(3, "row", "x"), "row 4: `row` must be a whole number"),
        (_set(3, "sample", "made up"), "row 4: its `sample` is another"),
        (lambda rows: [row.update(sample="") for row in rows], "does not say how its rows were drawn"),
        (lambda rows: rows[4].update(row=rows[3]["row"]), "row 5: it is row"),
        (lambda rows: [row.update(label="") for row in rows], "no row has a label yet"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused_by_row(
    files: list[str],
    drawn: Path,
    truth: Predictions,
    change: Callable[[Rows], object],
    words: str,
) -> None:
    """Each fault names the file, the row and the rule."""
    changed(filled(drawn, truth), change)
    done = label(*files, "--in", drawn)
    assert isinstance(done.exception, SluiceError)
    assert words in str(done.exception)
    assert str(drawn) in str(done.exception)


def test_another_table_is_refused(drawn: Path, truth: Predictions, files: list[str], tmp_path: Path) -> None:
    """Labels of rows of one table say nothing of another's."""
    blank = replace(truth, label=np.full(len(truth), UNLABELLED)).take(np.arange(2900))
    write_predictions(tmp_path / "other.parquet", blank)
    done = label("--predictions", tmp_path / "other.parquet", *files[2:], "--in", filled(drawn, truth))
    assert isinstance(done.exception, SluiceError)
    assert "other predictions" in str(done.exception)


def test_a_row_left_out_counts_as_a_loss(
    files: list[str], drawn: Path, truth: Predictions, tmp_path: Path
) -> None:
    """Rows without a label before labelled ones can only make the certificate worse."""
    outs = [tmp_path / "whole.json", tmp_path / "gaps.json"]
    label(*files, "--in", filled(drawn, truth), "--policy", outs[0])
    changed(drawn, lambda rows: [row.update(label="") for row in rows[:-1:2]])
    label(*files, "--in", drawn, "--policy", outs[1])
    whole, gaps = (json.loads(path.read_text())["stages"] for path in outs)
    assert len(gaps) == 1 or gaps[0]["threshold"] > whole[0]["threshold"]


def test_a_family_that_only_heard_its_teacher_asks_for_texts(tmp_path: Path) -> None:
    """Its labels are the teacher's answers, so rows of its certify split are asked for, with their texts."""
    write_fake_family(tmp_path / "family")
    manifest = tmp_path / "family" / "family.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "truth": "teacher"}))
    out = tmp_path / "labels.csv"
    done = label(tmp_path / "family", "--budget", "30", "--out", out)
    assert done.exit_code == 0, done.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) <= 30
    assert all("story" in row["text"] and 900 <= int(row["row"]) < 2100 for row in rows)
    filled = changed(out, lambda rows: [row.update(label=row["text"].split(":")[0]) for row in rows])
    done = label(tmp_path / "family", "--in", filled, "--policy", tmp_path / "p.json", "--json")
    assert json.loads(done.stdout)["policy"]["certificate"]["n_labels"] == len(rows)


def test_without_a_terminal_there_is_nobody_to_ask(files: list[str]) -> None:
    """It says so, and which option to use."""
    done = label(*files)
    assert done.exit_code == 2
    assert "--out FILE" in done.output


def test_answers_on_a_terminal_are_kept_undone_and_gone_on_from(files: list[str], tmp_path: Path) -> None:
    """A number chooses a label, u takes it back, q stops; the next run goes on where this one stopped."""
    kept = Path(files[1]).parent / "labels.csv"
    kept.unlink(missing_ok=True)
    _converse(files, tmp_path, ["1", "2", "u", "1", "a", "q"])
    with kept.open() as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert all(labels[:3])
    assert labels[2] == "a"
    assert not any(labels[3:])
    said = _converse(files, tmp_path, ["q"])
    assert "3 done" in said
    kept.unlink()


def _converse(files: list[str], folder: Path, answers: list[str]) -> str:
    """Run the command on a terminal, give an answer at each prompt, and return all it said."""
    terminal, inner = pty.openpty()
    line = [sys.executable, "-m", "sluicegate.main", "label", *files, "--budget", "80"]
    line += ["--policy", str(folder / "policy.json")]
    child = subprocess.Popen(line, stdin=inner, stdout=inner, stderr=inner, close_fds=True)
    os.close(inner)
    said, asked, until = "", 0, time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            said += part.decode(errors="replace")
            while asked < len(answers) and said.count("label> ") > asked:
                os.write(terminal, (answers[asked] + "\n").encode())
                asked += 1
    child.wait(timeout=30)
    os.close(terminal)
    return said
