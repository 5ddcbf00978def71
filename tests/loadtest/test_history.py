"""The runs that a folder keeps, and the gate against the last good one."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from contract.errors import InputError, RunError
from contract.run import write_run
from loadtest.history import last_good, remove, runs_in, tag_run, to_prune
from sluicegate.main import cli
from tests.loadtest.tables import START, summary_of, table


def a_run(folder: Path, *, day: int = 0, scale: float = 1.0, rate: float = 100.0, n: int = 1000) -> Path:
    """Write a run that began `day` days after the first; its latencies grow with `scale`."""
    requests = table(np.random.default_rng(day).gamma(4.0, 2.0 * scale, n).tolist(), rate=rate)
    summary = summary_of(requests, slo_ms=None, rate=rate)
    write_run(folder, requests, summary.model_copy(update={"started_at_s": START + day * 86_400}))
    return folder


def sluice(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [*map(str, arguments)], env={"COLUMNS": "200", "GITHUB_STEP_SUMMARY": ""})


def test_runs_are_found_at_any_depth_oldest_first(tmp_path: Path) -> None:
    """Order is by when they were measured; what cannot be read is named, and hides nothing."""
    a_run(tmp_path / "b" / "late", day=3)
    a_run(tmp_path / "early", day=1)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "summary.json").write_text("{}")
    runs, broken = runs_in(tmp_path)
    assert [run.folder.name for run in runs] == ["early", "late"]
    assert len(broken) == 1
    assert "broken/summary.json" in broken[0]
    listed = sluice("runs", "list", tmp_path, "--json")
    assert [Path(run["run"]).name for run in json.loads(listed.stdout)] == ["early", "late"]
    assert "b/late" in sluice("runs", "list", tmp_path).stdout
    with pytest.raises(RunError, match="no folder of runs"):
        runs_in(tmp_path / "nowhere")


def test_tags_are_given_and_taken(tmp_path: Path) -> None:
    """A run keeps its tags sorted and once each; other characters and folders without a run are refused."""
    run = a_run(tmp_path / "a")
    assert tag_run(run, add=("good", "1.2", "good")) == ("1.2", "good")
    assert tag_run(run, remove=("1.2", "never")) == ("good",)
    assert "good" in sluice("runs", "list", tmp_path, "--tag", "good").stdout
    assert json.loads(sluice("runs", "list", tmp_path, "--tag", "bad", "--json").stdout) == []
    assert tag_run(run, remove=("good",)) == ()
    assert not (run / "tags.json").exists()
    with pytest.raises(InputError, match="is no tag"):
        tag_run(run, add=("two words",))
    with pytest.raises(RunError):
        tag_run(tmp_path / "none", add=("good",))
    (run / "tags.json").write_text('{"tags": "good"}')
    with pytest.raises(RunError, match=r"tags\.json"):
        tag_run(run, add=("good",))


def test_prune_keeps_what_is_new_tagged_or_part_of_a_sweep(tmp_path: Path) -> None:
    """The rest goes when it is old enough, and other files in its folder stay."""
    for day in range(6):
        a_run(tmp_path / f"day{day}", day=day)
    tag_run(tmp_path / "day0", add=("release",))
    a_run(tmp_path / "sweep" / "runs" / "01-20", day=0)
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    (tmp_path / "day1" / "notes.txt").write_text("mine")
    runs, _ = runs_in(tmp_path)
    now = START + 5.5 * 86_400
    gone = to_prune(runs, keep=2, older_than_days=3, now_s=now)
    assert [run.folder.name for run in gone] == ["day1", "day2"]
    for run in gone:
        remove(run)
    assert [path.name for path in (tmp_path / "day1").iterdir()] == ["notes.txt"]
    assert not (tmp_path / "day2").exists()
    assert "day3" in sluice("runs", "prune", tmp_path, "--keep", 2, "--dry-run").stdout
    assert (tmp_path / "day3").exists()
    assert json.loads(sluice("runs", "prune", tmp_path, "--keep", 2, "--json").stdout)["dry_run"] is False
    assert not (tmp_path / "day3").exists()


def test_the_last_good_run_is_the_newest_that_was_asked_for_the_same(tmp_path: Path) -> None:
    """Other rates, runs without the tag and the run itself are passed over."""
    head = a_run(tmp_path / "head", day=9)
    assert last_good(tmp_path, head) is None
    for name, day, rate in (("old", 1, 100.0), ("new", 2, 100.0), ("other", 3, 50.0)):
        tag_run(a_run(tmp_path / name, day=day, rate=rate), add=("good",))
    a_run(tmp_path / "untagged", day=4)
    tag_run(head, add=("good",))
    assert last_good(tmp_path, head) == tmp_path / "new"


def test_a_gate_against_the_last_good_run_tags_what_passes(tmp_path: Path) -> None:
    """The first is good for want of another, a slower one is not; the next is held against the first."""
    first = a_run(tmp_path / "1", day=1)
    assert "it is the first" in sluice("gate", first, "--last-good", tmp_path).stderr
    slow = a_run(tmp_path / "2", day=2, scale=2.0)
    failed = sluice("gate", slow, "--last-good", tmp_path)
    assert str(failed.exception) == f"{slow} is worse than {first}"
    same = a_run(tmp_path / "3", day=3)
    report = json.loads(sluice("gate", same, "--last-good", tmp_path, "--json").stdout)
    assert (report["verdict"], report["base"]) == ("passed", str(first))
    assert [bool(run.tags) for run in runs_in(tmp_path)[0]] == [True, False, True]
    assert sluice("gate", same).exit_code == 2
    assert sluice("gate", first, same, "--last-good", tmp_path).exit_code == 2


def test_a_gate_writes_what_ci_reads(tmp_path: Path) -> None:
    """JUnit counts a worse figure as a failure and an unsure one as skipped; GitHub gets a Markdown table."""
    base, slow = a_run(tmp_path / "a"), a_run(tmp_path / "b", scale=2.0)
    junit, page = tmp_path / "gate.xml", tmp_path / "summary.md"
    sluice("gate", base, slow, "--junit", junit, "--github-summary", page)
    suite = ET.parse(junit).getroot()
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["3", "1", "0"]
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["p99_ms"]
    assert page.read_text().startswith(f"### {slow} against {base}: worse")
    assert "| **p99_ms** |" in page.read_text()
    short = [a_run(tmp_path / name, n=100) for name in ("c", "d")]
    assert sluice("gate", *short, "--junit", junit).exit_code == 0
    assert ET.parse(junit).getroot().get("skipped") == "1"


def test_runs_are_compared_with_the_first(tmp_path: Path) -> None:
    """Each later run has its differences with intervals; one at another rate stands without."""
    runs = [a_run(tmp_path / "a"), a_run(tmp_path / "b", scale=1.5), a_run(tmp_path / "c", rate=50.0)]
    compared = sluice("runs", "compare", *runs, "--json")
    told = json.loads(compared.stdout)
    assert len(told["runs"]) == 3
    (difference,) = told["against_first"]
    assert difference["checks"][0]["change"] == pytest.approx(0.5, abs=0.15)
    assert "not comparable: rate_asked_per_s" in compared.stderr
    assert sluice("runs", "compare", runs[0]).exit_code == 2
    shown = "".join(sluice("runs", "compare", *runs[:2]).stdout.split())
    assert f"{runs[1]}against{runs[0]}:worse" in shown
