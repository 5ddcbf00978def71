"""`sluice verify`: certificates worked out again from their rows, and the chain of a state's revisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contract.errors import TargetNotMet
from contract.evidence import Block, LiveEvidence, LiveRule
from contract.live import FamilyReference
from contract.policy import Policy, read_policy, single_variant_policy, write_policy
from router.live.watch import judge
from runtime.fake_family import write_fake_family
from serve.control.revision_store import first_revision, following, open_revisions
from sluicegate.main import cli


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of fakes on disk."""
    folder = tmp_path_factory.mktemp("family")
    write_fake_family(folder, delay_ms=0.0, rows=3000)
    return folder


def run(*words: object) -> tuple[int, str]:
    """Return exit code and output of a command."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return 3 if isinstance(result.exception, TargetNotMet) else result.exit_code, result.output


def tuned(family: Path, folder: Path, *asked: object) -> Path:
    """Return a policy of that family."""
    path = folder / "policy.json"
    code, said = run("tune", family, *asked, "--out", path)
    assert code == 0, said
    return path


@pytest.mark.parametrize(
    "asked",
    [
        ["--max-accuracy-drop", 0.03],
        ["--max-accuracy-drop", 0.03, "--seed", 7, "--variants", "fake-small,fake-large"],
        ["--max-answered-error", 0.05, "--max-usd-per-1k", 100],
        ["--max-answered-error", 0.08, "--abstain"],
        ["--max-accuracy-drop", 0.03, "--gears", "--overload-drop", 0.08],
        ["--max-recall-drop", "sport=0.2", "--score", "margin"],
    ],
)  # fmt: skip
def test_a_certificate_comes_out_again(family: Path, tmp_path: Path, asked: list[object]) -> None:
    """By the family and by its bare rows, with whatever was asked for."""
    path = tuned(family, tmp_path, *asked)
    code, said = run("verify", path, "--family", family, "--json")
    assert code == 0, said
    assert json.loads(said)["holds"] is True
    bare = ("--predictions", family / "predictions.parquet", "--costs", family / "costs.json")
    code, said = run("verify", path, *bare)
    assert code == 0, said
    assert "byte for byte" in said


def _edited(path: Path, change: dict[str, Any]) -> None:
    """Change a policy and seal it again, as a forger would."""
    policy = read_policy(path)
    value = policy.dump()
    value["version"] = ""
    for key, one in change.items():
        value[key] = one
    write_policy(path, Policy.model_validate(value).sealed())


def test_a_forged_threshold_is_found_and_named(family: Path, tmp_path: Path) -> None:
    """Its version fits, since a forger can hash too; tuning again says otherwise, and where."""
    path = tuned(family, tmp_path, "--max-accuracy-drop", 0.03)
    stages = json.loads(path.read_text())["stages"]
    stages[0]["threshold"] = 0.01
    _edited(path, {"stages": stages})
    code, said = run("verify", path, "--family", family)
    assert code == 3
    assert "FAILS  tuned again" in said
    assert "it differs in stages" in said


def test_other_rows_and_other_builds_are_told(family: Path, tmp_path: Path) -> None:
    """Each by itself, so that an auditor knows which of them it is."""
    path = tuned(family, tmp_path, "--max-accuracy-drop", 0.03)
    other = tmp_path / "other"
    write_fake_family(other, delay_ms=0.0, rows=3000, seed=1)
    code, said = run("verify", path, "--family", other, "--json")
    failed = {check["name"] for check in json.loads(said)["checks"] if not check["holds"]}
    assert (code, failed) == (3, {"data", "build", "tuned again"})


def test_a_policy_without_a_certificate_promises_nothing(family: Path, tmp_path: Path) -> None:
    """Which is what is said of it."""
    path = tuned(family, tmp_path, "--max-accuracy-drop", 0.03, "--uncertified")
    code, said = run("verify", path, "--family", family)
    assert (code, "promises nothing" in said) == (3, True)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state of four revisions."""
    store = open_revisions(str(tmp_path / "state"))
    where = FamilyReference(name="f", sha256="0" * 64, path="/f")
    latest = first_revision(single_variant_policy("a"), where, "seed")
    store.commit(latest)
    for name in ("b", "c", "d"):
        changed = latest.serving(single_variant_policy(name))
        store.commit(following(latest, changed, "push"))
        found = store.latest()
        assert found is not None
        latest = found
    return tmp_path / "state"


def test_a_whole_chain_holds(state: Path) -> None:
    """And the hash of its last revision is told, which nothing in the state vouches for."""
    code, said = run("verify", "--state", state)
    assert code == 0, said
    assert "4 revisions" in said


def test_a_revision_that_was_changed_later_is_named(state: Path) -> None:
    """By the hash that its successor says."""
    path = state / "revisions" / "00000002.json"
    value = json.loads(path.read_text())
    value["reason"] = "nothing happened here"
    path.write_text(json.dumps(value))
    code, said = run("verify", "--state", state)
    assert code == 3
    assert "revision 2 is not what it was when revision 3 was written" in said


def test_a_revision_that_is_gone_is_named(state: Path) -> None:
    """A hole is a break."""
    (state / "revisions" / "00000003.json").unlink()
    code, said = run("verify", "--state", state)
    assert (code, "revision 3 is missing" in said) == (3, True)


def test_an_old_state_is_readable_and_goes_on_as_a_chain(state: Path) -> None:
    """What an earlier release wrote says no hash; what is written now does, from there on."""
    for number in (1, 2, 3, 4):
        path = state / "revisions" / f"0000000{number}.json"
        value = json.loads(path.read_text())
        value.pop("before_sha256", None)
        path.write_text(json.dumps(value))
    store = open_revisions(str(state))
    latest = store.latest()
    assert latest is not None
    store.commit(following(latest, latest.serving(single_variant_policy("e")), "push"))
    code, said = run("verify", "--state", state)
    assert code == 0, said
    assert "from 5 on" in said


def test_live_evidence_is_judged_again_from_its_blocks(family: Path, tmp_path: Path) -> None:
    """What it says it proves has to follow from its audits, and be about this policy."""
    path = tuned(family, tmp_path, "--max-accuracy-drop", 0.03)
    rule = LiveRule(promised_drop=0.03, floor=0.1)
    blocks = (Block(texts=400, draws=40, asked=40, agreed=40),)
    evidence = LiveEvidence(
        family="fake", policy_version=read_policy(path).version, reference="fake-large", since="", rule=rule,
        blocks=blocks, standing=judge(blocks, rule, 0.5),
    )  # fmt: skip
    told = tmp_path / "live.json"
    told.write_text(json.dumps(evidence.dump()))
    code, said = run("verify", path, "--evidence", told)
    assert code == 0, said
    better = evidence.standing.model_copy(update={"drop_high": 0.0})
    told.write_text(json.dumps(evidence.model_copy(update={"standing": better}).dump()))
    code, said = run("verify", path, "--evidence", told)
    assert (code, "it differs in drop_high" in said) == (3, True)
