"""Commands on a fake family: results on stdout, errors by name, exit codes as promised."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.policy import Policy, Stage, write_policy
from loadtest.reference import Behaviour, serving
from runtime.fake_family import write_fake_family

URL = "http://127.0.0.1:9"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `sluice ARGUMENTS` as a user would."""
    command = [sys.executable, "-m", "sluicegate.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of fakes with predictions and costs."""
    folder = tmp_path_factory.mktemp("family")
    write_fake_family(folder, delay_ms=1.0)
    return folder


@pytest.fixture(scope="module")
def policy(family: Path) -> Path:
    """A policy tuned on that family."""
    path = family / "policy.json"
    done = run("tune", family, "--max-accuracy-drop", "0.05", "--out", path)
    assert done.returncode == 0, done.stderr
    return path


def test_inspect_writes_the_manifest_as_json(family: Path) -> None:
    """The JSON of inspect is the family manifest."""
    assert json.loads(run("inspect", family, "--json").stdout) == json.loads(
        (family / "family.json").read_text()
    )


def test_inspect_shows_parts_on_demand(family: Path, tmp_path: Path) -> None:
    """Slices and steps are told when asked for, as far as the family knows them."""
    raw = json.loads((family / "family.json").read_text())
    raw["variants"][0]["per_slice"] = {"short": {"n": 7, "accuracy": 0.5}}
    raw["steps"] = [{"name": "teacher", "kind": "teacher", "seconds": 90.0}]
    copy = Path(shutil.copytree(family, tmp_path / "family"))
    (copy / "family.json").write_text(json.dumps(raw))
    plain, full = run("inspect", copy), run("inspect", copy, "--slices", "--steps")
    assert "short" not in plain.stdout
    assert "short" in full.stdout
    assert "What each step cost" in full.stdout
    assert "90.0 s" in full.stdout


def test_tune_explains_itself_in_words(family: Path, tmp_path: Path) -> None:
    """Without --json, tune says who escalates, what it costs, what it risks and how sure that is."""
    done = run("tune", family, "--max-accuracy-drop", "0.05", "--out", tmp_path / "p.json")
    for words in ("escalates", "costs", "risks", "sure"):
        assert words in done.stdout


def test_tune_without_a_target_is_a_usage_error(family: Path) -> None:
    """A tune that asks for nothing exits 2 and names a target to give."""
    done = run("tune", family)
    assert done.returncode == 2
    assert "--max-accuracy-drop" in done.stderr


def test_no_safe_threshold_exits_3_and_still_writes_the_policy(family: Path, tmp_path: Path) -> None:
    """An impossible target exits 3; the policy written sends all to the reference and says what is needed."""
    out = tmp_path / "p.json"
    done = run("tune", family, "--max-accuracy-drop", "0.0001", "--out", out)
    assert done.returncode == 3
    written = json.loads(out.read_text())
    assert written["status"] == "no_safe_threshold"
    assert [s["variant"] for s in written["stages"]] == [written["reference"]]
    assert written["needed_n"] > 0


def test_simulate_gives_every_promised_key(family: Path, policy: Path) -> None:
    """The JSON of simulate has the keys that other programs read."""
    done = run("simulate", family, "--policy", policy, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) >= {
        "n", "accuracy", "accuracy_interval", "macro_f1", "reference", "reference_accuracy", "accuracy_drop",
        "escalation_rate", "stage_share", "usd_per_1k", "latency_ms", "energy_wh_per_1k", "per_slice",
        "per_class",
    }  # fmt: skip


def test_a_policy_that_leaves_texts_to_a_person_is_replayed(family: Path, tmp_path: Path) -> None:
    """What nobody answers takes no variant's time: its share is told, and p99 is of the stages that ran."""
    stages = (Stage(variant="fake-small", threshold=0.9), Stage(variant="abstain"))
    policy = Policy(status="uncertified", reference="fake-large", stages=stages)
    write_policy(tmp_path / "policy.json", policy)
    done = run("simulate", family, "--policy", tmp_path / "policy.json", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 0 < told["abstention_rate"] < 1
    assert told["latency_p99_ms"] > 0


def test_simulate_in_words_shows_slices_and_classes(family: Path, policy: Path) -> None:
    """Without --json, simulate prints a table per class beside the figures of all rows."""
    done = run("simulate", family, "--policy", policy)
    assert done.returncode == 0
    assert "per class" in done.stdout
    assert "recall" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("inspect", "nowhere"), 1, "no family here"),
        (("simulate", "nowhere", "--policy", "x.json"), 1, "no family here"),
        (("simulate", "--policy", "x.json"), 2, "either FAMILY or --predictions"),
        (("simulate", "--predictions", "p.parquet", "--policy", "x.json"), 2, "--costs"),
        (("serve",), 2, "either FAMILY or --fake"),
        (("serve", "nowhere"), 1, "no family here"),
        (("serve", "--fake", "--port", "9", "--admin-port", "9"), 2, "must differ"),
        (("report", "--out", "r.html"), 1, "nothing to report"),
        (("gate", "a", "b"), 1, "neither a run nor a folder"),
        (("decide",), 2, "RUNS"),
        (("compress", "nowhere.yaml", "--out", "f"), 1, "no such recipe"),
        (("tune", "nowhere", "--max-accuracy-drop", "0.1", "--seed", "-1"), 2, "--seed"),
        (("policy", "show", "--admin-url", URL), 1, "no gateway answers"),
        (("loadtest", URL, "--data", "x.csv", "--rate", "1", "--duration", "1"), 1, "x.csv"),
        (("loadtest", URL, "--data", "x.csv", "--rate", "0", "--duration", "1"), 2, "--rate"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_wrong_use_says_what_is_wrong(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of wrong use has its exit code and names what is wrong, without a traceback."""
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_load_that_nobody_answers_fails(tmp_path: Path) -> None:
    """A server that refuses every request gives a void run, kept with the refusal, and exit code 1."""
    (tmp_path / "texts.csv").write_text("text,label\na text,a\n")
    with serving(Behaviour(api_key="secret")) as server:
        asked = ("--data", tmp_path / "texts.csv", "--rate", "20", "--duration", "0.5", "--seed", "1")
        done = run("loadtest", server.url, *asked, "--out", tmp_path / "run", "--json")
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["valid"], summary["usd_per_1k"]) == (False, None)
    assert "void: not one of 10 requests was answered: the first got status 401" in done.stderr
    assert (tmp_path / "run" / "summary.json").exists()


def test_report_writes_one_page_and_says_where(family: Path, policy: Path, tmp_path: Path) -> None:
    """The report names every file it wrote, the page first."""
    done = run("report", family, "--policy", policy, "--out", tmp_path / "r.html", "--json")
    assert done.returncode == 0, done.stderr
    paths = [Path(p) for p in json.loads(done.stdout)["paths"]]
    assert paths[0] == tmp_path / "r.html"
    assert all(p.exists() for p in paths)


def test_scores_are_compared_without_a_target(family: Path) -> None:
    """`--compare-scores` shows every score's area per cascade, as text and as JSON, and tunes nothing."""
    done = run("tune", family, "--compare-scores")
    assert done.returncode == 0, done.stderr
    for word in ("max_probability", "margin", "oracle", "area"):
        assert word in done.stdout
    curves = json.loads(run("tune", family, "--compare-scores", "--json").stdout)["scores"]
    assert all(len(curve["accuracies"]) in (0, 101) for curve in curves)
