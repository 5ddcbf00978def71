"""The supervisor of a proxy, on a real store and folder, with a gateway that says what the test says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil
import pytest
import yaml
from click.testing import CliRunner

from contract.collected import CollectedRow, KeepRules, Question
from contract.errors import InputError
from contract.remote import RemoteModel
from serve.settings.upstream import UpstreamSettings
from sluicegate.proxy import recipe, steps
from sluicegate.proxy.gateway import read_counters
from sluicegate.proxy.moves import Facts
from sluicegate.proxy.plan import Plan, Upstream
from sluicegate.proxy.prospect import prospect_of, told
from sluicegate.proxy.service import check_start
from sluicegate.proxy.standing import Standing, read_standing, write_standing
from sluicegate.proxy.supervisor import Supervisor, ask_to_train, supervise
from sluicegate.proxy_cmd import command as proxy
from sluicegate.upstream_options import plan_of
from tables.collected.store import CollectedStore
from tests.support.known_model import KnownModel, known_model

V = "a" * 64
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


def supervisor(plan: Plan, facts: Facts | None = None, refusal: str = "") -> tuple[Supervisor, list[str]]:
    """Return a supervisor at a fixed time, and the lines that it tells; stages are refused so."""
    lines: list[str] = []
    made = Supervisor(
        plan,
        lambda: False,
        lines.append,
        view=Seen(facts or Facts()),
        why_no_answer=lambda *_: refusal,
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


def test_nothing_is_trained_that_could_not_be_asked(tmp_path: Path) -> None:
    """Where clients bring the key, a stage has none: all is passed on as before, and the line says why."""
    plan = plan_in(tmp_path, needed_texts=100)
    collect(plan, ["card", "transfer"] * 60)
    made, lines = supervisor(plan, refusal="status 401: --api-key-env")

    made.once()
    made.once()

    assert made.standing.phase == "collecting"
    assert "--api-key-env" in lines[-1]
    assert not (tmp_path / "round-1").exists()


def test_a_family_is_not_loaded_whose_stage_is_refused(tmp_path: Path) -> None:
    """A key that went wrong during the training is found before any question goes to the stage."""
    plan = plan_in(tmp_path)
    collect(plan, ["card", "transfer"] * 60)
    write_standing(tmp_path, Standing(phase="loading", round=1, question=QUESTION.sha256, policy_version=V))
    made, lines = supervisor(plan, refusal="status 403")

    made.once()

    assert "status 403" in lines[-1]
    assert not (tmp_path / "logs" / "family.log").exists()


def test_the_upstream_is_asked_as_a_stage_will_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key of its own a stage is refused, which is said with the option; with it nothing is."""
    model = KnownModel(QUESTION.labels)
    model.key = "right"
    with known_model(model) as root:
        url = f"{root}/v1"
        open_, keyed = (plan_in(tmp_path, upstream=Upstream(url, key, 0.03)) for key in (None, "BIG_KEY"))
        collect(open_, ["card", "transfer"] * 5)

        assert "--api-key-env" in recipe.why_no_answer(open_, QUESTION.sha256)
        assert "BIG_KEY" in recipe.why_no_answer(keyed, QUESTION.sha256)
        monkeypatch.setenv("BIG_KEY", "right")
        assert recipe.why_no_answer(keyed, QUESTION.sha256) == ""


def test_one_that_only_collects_refuses_the_folder_of_a_proxy_under_way(tmp_path: Path) -> None:
    """Its family may be answering, which a command that never trains must not take over."""
    write_standing(tmp_path, Standing(phase="canary", round=1, question="q"))

    with pytest.raises(InputError, match="canary"):
        check_start(plan_in(tmp_path, trains=False))
    check_start(plan_in(tmp_path))


@pytest.mark.parametrize("phase", ["training", "certifying"])
def test_a_family_that_asks_another_upstream_is_not_served(
    tmp_path: Path, phase: Literal["training", "certifying"]
) -> None:
    """Its stage would go on paying the one that was left; one that is not served yet is made anew."""
    plan = plan_in(tmp_path)
    collect(plan, ["card", "transfer"] * 60)
    recipe.prepare(plan, QUESTION.sha256, tmp_path / "round-1")
    other = plan_in(tmp_path, upstream=Upstream("http://127.0.0.1:8/v1", "BIG_KEY", 0.05))
    write_standing(tmp_path, Standing(phase="full", round=1, question=QUESTION.sha256))

    check_start(plan)
    with pytest.raises(InputError, match=r"--upstream, --usd-per-1k"):
        check_start(other)

    write_standing(tmp_path, Standing(phase=phase, round=1, question=QUESTION.sha256))
    check_start(other)
    made, _ = supervisor(other)
    made.once()
    assert made.standing.phase == "collecting"
    assert "another upstream" in made.standing.problem


def test_a_round_that_leads_nowhere_leaves_in_force_what_was(tmp_path: Path) -> None:
    """The policy in force and its certificate stay on the line, and no training begins by itself."""
    plan = plan_in(tmp_path, max_disagreement=0.2)
    collect(plan, ["card"] * 150)
    options = plan_in(tmp_path).round_options
    write_standing(
        tmp_path,
        Standing(
            phase="full", round=1, question=QUESTION.sha256, policy_version=V, certificate="certified",
            options=options,
        ),
    )  # fmt: skip
    ask_to_train(tmp_path)
    made, lines = supervisor(plan, Facts(loaded=True, in_force=V))

    assert made.once() == "train"
    assert (made.standing.phase, made.standing.round, made.standing.policy_version) == ("full", 1, V)
    assert made.standing.options == options
    assert "nothing to learn" in lines[-1]
    assert "certified" in lines[-1]
    assert made.once() == "wait"


def test_a_round_keeps_its_options(tmp_path: Path) -> None:
    """What is certified is what the training was begun for, whatever a later start asks."""
    begun = plan_in(tmp_path, max_disagreement=0.02, seed=7)
    standing = Standing(phase="certifying", round=1, question="q", options=begun.round_options)
    write_standing(tmp_path, standing)
    made, _ = supervisor(plan_in(tmp_path, max_disagreement=0.3))

    words = steps.tune_words(made._plan, 1)
    assert words[words.index("--max-disagreement") + 1] == "0.02"
    assert words[words.index("--seed") + 1] == "7"


def test_a_failure_that_more_texts_would_not_mend_waits_to_be_told(tmp_path: Path) -> None:
    """The wanted number does not grow from round to round; the line says what failed and what to do."""
    plan = plan_in(tmp_path, needed_texts=100)
    collect(plan, ["card", "transfer"] * 60)
    made, lines = supervisor(plan)
    (tmp_path / "round-1").mkdir()
    made._runner.run = lambda _: 1  # type: ignore[method-assign,assignment]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "compress.log").write_text("no room on the disk")

    assert made.once() == "train"
    assert made.standing.phase == "collecting"
    assert "no room on the disk; sluice proxy train tries again" in lines[-1]
    assert made.once() == "wait"


def test_texts_go_from_rounds_with_the_consent(tmp_path: Path) -> None:
    """A training that was under way ends, and its copies of the texts are removed."""
    plan = plan_in(tmp_path, keep_texts=False)
    collect(plan, ["card", "transfer"] * 60)
    write_standing(tmp_path, Standing(phase="training", round=1, question=QUESTION.sha256))
    recipe.prepare(plan, QUESTION.sha256, tmp_path / "round-1")
    (tmp_path / "round-1" / "family" / ".steps").mkdir(parents=True)
    made, lines = supervisor(plan)

    made.once()

    assert not list((tmp_path / "round-1").rglob("*.parquet"))
    assert not (tmp_path / "round-1" / "family").exists()
    assert made.once() == "wait"
    assert "--keep-texts" in lines[-1]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A broken part is no store without answers: the supervisor says which file it is, and goes on."""
    plan = plan_in(tmp_path)
    store = collect(plan, ["card", "transfer"])
    next(store.parts_folder.glob("part-*")).write_bytes(b"no parquet")
    lines: list[str] = []

    supervise(plan, lambda: len(lines) >= 1, lines.append, lambda _: None)

    assert "move it away" in lines[0] or "cannot be read" in lines[0]


def test_a_stage_has_as_many_places_as_passing_on_has() -> None:
    """Loading a family must not lower how many questions may be out: 256 for each gateway replica."""
    asked = {
        "upstream": "http://127.0.0.1:9/v1", "usd_per_1k": 0.03, "host": "127.0.0.1", "port": 1,
        "admin_port": 2, "out": Path("x"), "api_key_env": None, "keep_texts": True, "replicas": 2,
    }  # fmt: skip
    plan = plan_of(asked)
    assert (
        recipe.remote_of(plan, QUESTION)["max_concurrency"]
        == 2 * UpstreamSettings(url="http://h").max_in_flight
    )
    assert plan_of({**asked, "replicas": 9}).upstream.places == 1024


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
