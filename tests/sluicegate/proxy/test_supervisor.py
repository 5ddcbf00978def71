"""The supervisor of a proxy, on a real store and folder, with a gateway that says what the test says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import yaml
from click.testing import CliRunner

from contract.collected import CollectedRow, KeepRules, Question
from contract.errors import InputError
from contract.remote import RemoteModel
from sluicegate.proxy import recipe, steps
from sluicegate.proxy.gateway import read_counters
from sluicegate.proxy.moves import Facts
from sluicegate.proxy.plan import Plan, Upstream
from sluicegate.proxy.prospect import prospect_of, told
from sluicegate.proxy.standing import Standing, read_standing, write_standing
from sluicegate.proxy.supervisor import Supervisor, ask_to_train
from sluicegate.proxy_cmd import command as proxy
from tables.collected.store import CollectedStore

LABELS = ("card", "transfer")
QUESTION = Question(labels=LABELS, instructions="Which?", model="big", descriptions={"card": "a lost card"})


class Seen:
    """What the gateway says."""

    def __init__(self, facts: Facts | None) -> None:
        self.facts = facts

    def look(self) -> Facts | None:
        """Return what was set."""
        return self.facts

    def counters(self) -> dict[str, float]:
        """Return a day's figures."""
        return {"saved_usd": 0.5, "here": 8, "elsewhere": 2}


def plan_in(folder: Path, **more: object) -> Plan:
    """Return a plan for a folder."""
    told_of = {
        "folder": folder, "upstream": Upstream("http://127.0.0.1:9/v1", "BIG_KEY", 0.03),
        "url": "", "admin_url": "", "student": False, **more,
    }  # fmt: skip
    return Plan(**told_of)  # type: ignore[arg-type]


def collect(plan: Plan, answers: Sequence[str], *, texts: bool = True) -> CollectedStore:
    """Fill a plan's store with one text for each answer."""
    store = CollectedStore.create(plan.collected, KeepRules(texts=texts))
    store.remember(QUESTION)
    rows = [
        CollectedRow(
            id=f"r{n}", at_s=1e9 + 60 * n, question=QUESTION.sha256, text_sha256=store.hash_of(str(n)),
            text=f"my {answer} number {n}" if texts else None, answer=answer, usd=3e-5,
            probabilities=(0.9, 0.1) if answer == "card" else (0.1, 0.9),
        )
        for n, answer in enumerate(answers)
    ]  # fmt: skip
    store.add(rows, "a_0")
    return store


def supervisor(plan: Plan, facts: Facts | None = None) -> tuple[Supervisor, list[str]]:
    """Return a supervisor at a fixed time, and the lines that it tells."""
    lines: list[str] = []
    made = Supervisor(
        plan,
        lambda: False,
        lines.append,
        view=Seen(facts or Facts()),
        now=lambda: datetime(2026, 11, 29, tzinfo=UTC),
    )
    return made, lines


def test_it_says_how_far_it_is_and_keeps_that(tmp_path: Path) -> None:
    """The line has the texts so far and those needed, and the file says the same at the next start."""
    plan = plan_in(tmp_path)
    collect(plan, ["card", "transfer"] * 10)
    made, lines = supervisor(plan)

    assert made.once() == "wait"
    needed = made.standing.needed_texts
    assert f"(20 of {needed:,} texts)" in lines[-1]
    assert "80.0% answered here today | 0.5 USD saved today" in lines[-1]
    assert read_standing(tmp_path) == made.standing


def test_without_texts_it_says_what_is_missing(tmp_path: Path) -> None:
    """Answers alone train nothing, and the line says which option is needed."""
    plan = plan_in(tmp_path, needed_texts=5)
    collect(plan, ["card", "transfer"] * 10, texts=False)
    made, lines = supervisor(plan)

    assert made.once() == "wait"
    assert "--keep-texts" in lines[-1]


def test_where_nothing_can_be_learnt_it_collects_on(tmp_path: Path) -> None:
    """One answer to everything trains nothing; the next training waits for half as much again."""
    plan = plan_in(tmp_path, needed_texts=120)
    collect(plan, ["card"] * 120)
    made, _ = supervisor(plan)

    assert made.once() == "train"
    assert made.standing.phase == "collecting"
    assert made.standing.needed_texts == 180
    assert "nothing to learn" in made.standing.problem


def test_a_training_can_be_asked_for(tmp_path: Path) -> None:
    """The order is a file, which goes once the training has begun."""
    plan = plan_in(tmp_path)
    collect(plan, ["card"] * 120)
    ask_to_train(tmp_path)
    made, _ = supervisor(plan)

    assert made.once() == "train"
    assert not (tmp_path / "train.now").exists()
    with pytest.raises(InputError, match="no proxy"):
        ask_to_train(tmp_path / "nowhere")


def test_another_policy_in_force_is_told(tmp_path: Path) -> None:
    """A rollback by hand is seen, and not undone."""
    plan = plan_in(tmp_path)
    collect(plan, ["card", "transfer"] * 10)
    write_standing(
        tmp_path, Standing(phase="full", round=1, question=QUESTION.sha256, policy_version="a" * 64)
    )
    made, lines = supervisor(plan, Facts(loaded=True, in_force="b" * 64))

    assert made.once() == "wait"
    assert "another policy is in force" in lines[-1]


def test_a_recipe_asks_as_applications_do_and_asks_nothing_again(tmp_path: Path) -> None:
    """The upstream is the teacher under its own question; its answers are the file; its key stays a name."""
    plan = plan_in(tmp_path)
    collect(plan, ["card", "transfer"] * 60)
    recipe.prepare(plan, QUESTION.sha256, tmp_path / "round-1")

    written = yaml.safe_load((tmp_path / "round-1" / "recipe.yaml").read_text())
    remote = written["teacher"]["remote"]
    assert (remote.pop("ask"), remote.pop("max_usd")) == (False, 0)
    model = RemoteModel.model_validate(remote)
    assert (model.instructions, model.model, tuple(model.labels)) == ("Which?", "big", LABELS)
    assert model.credentials is not None
    assert model.credentials.env == "BIG_KEY"
    assert [variant["kind"] for variant in written["variants"]] == ["linear"]


def test_a_prospect_has_intervals_and_says_whether_it_is_enough(tmp_path: Path) -> None:
    """On words of their own nearly all texts can be answered here, and a day's saving is bounded."""
    plan = plan_in(tmp_path)
    collect(plan, ["card", "transfer"] * 400)

    found = prospect_of(plan.collected, "", max_disagreement=0.05, confidence=0.9, usd_per_1k=None, seed=0)

    assert found.enough
    assert found.saved is not None
    assert found.saved.share_interval[0] > 0.9
    assert found.saved.usd_per_1k == pytest.approx(0.03 * found.saved.share, rel=0.01)
    assert any("USD a day" in line for line in told(found))
    assert json.loads(json.dumps(found.dump()))["question"]["sha256"] == QUESTION.sha256


def test_counters_come_from_the_page_of_metrics() -> None:
    """Answers of the upstream and those given here are told apart."""
    page = (
        'sluice_requests_total{family="a",model="cascade",variant="linear",outcome="ok"} 7\n'
        'sluice_requests_total{family="a",model="cascade",variant="upstream",outcome="ok"} 2\n'
        'sluice_requests_total{family="",model="upstream",variant="upstream",outcome="ok"} 3\n'
        'sluice_requests_total{family="a",model="cascade",variant="none",outcome="overloaded"} 9\n'
        'sluice_saved_usd_total{family="a"} 0.25\n'
    )
    assert read_counters(page) == {"saved_usd": 0.25, "here": 7, "elsewhere": 5}


def test_the_status_of_a_proxy_that_does_not_run_is_shown(tmp_path: Path) -> None:
    """`sluice proxy status` needs no gateway."""
    plan = plan_in(tmp_path)
    collect(plan, ["card", "transfer"] * 10)
    supervisor(plan)[0].once()

    shown = CliRunner().invoke(proxy, ["status", "--out", str(tmp_path)])
    as_json = CliRunner().invoke(proxy, ["status", "--out", str(tmp_path), "--json"])

    assert shown.output.startswith("collecting | 20 answers collected")
    assert json.loads(as_json.output)["texts"] == 20


def test_a_step_ends_with_its_proxy(tmp_path: Path) -> None:
    """Told to stop, a proxy ends the command that is under way; its log says what it was."""
    runner = steps.Runner(tmp_path, lambda: True)

    with pytest.raises(steps.Stopped):
        runner.run(["stand-in", "--fake", "--port", "0"])

    assert (tmp_path / "stand-in.log").read_text().startswith("$ sluice stand-in --fake")


def test_a_step_that_outlived_its_proxy_is_ended_at_the_next_start(tmp_path: Path) -> None:
    """What a killed proxy left running does not keep its successor from running it again."""
    left = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    told_of = {"pid": left.pid, "created": psutil.Process(left.pid).create_time()}
    (tmp_path / "running.json").write_text(json.dumps(told_of))

    steps.Runner(tmp_path, lambda: False).end_what_was_left()

    assert not psutil.pid_exists(left.pid)
