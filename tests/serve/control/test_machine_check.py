"""At start a gateway looks whether its machine gives the answers that its certificate is about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.errors import PolicyError
from contract.family import write_family
from contract.machine import Machine
from contract.policy import Certificate, Policy, Stage, read_policy, write_policy
from runtime.machine import describe_machine
from serve.control.bootstrap import assign
from serve.control.plane import ControlPlane, Examined
from serve.control.revision_store import following, open_revisions
from serve.settings.gateway import Settings
from sluicegate.inspect_cmd import command
from tests.serve.parts import WillingReplicas
from tests.support.measured import compute_otherwise, write_measured_family

SEEDS = {"small": 1, "large": 2}
HERE = describe_machine()
OTHER = Machine(cpu="EPYC", cores=2, memory_bytes=1, isa=("avx2", "amx_int8"), system="Linux")


def settings_of(folder: Path, *, certified: bool = True) -> Settings:
    """Return the settings of a gateway with a cascade, certified or not, and a state of its own."""
    certificate = Certificate(
        method="betting", epsilon=0.1, delta=0.1, n_tune=1, n_certify=1, seed=0, data_sha256="0"
    )
    policy = Policy(
        status="certified" if certified else "uncertified",
        reference="large",
        stages=(Stage(variant="small", threshold=0.5), Stage(variant="large")),
        certificate=certificate if certified else None,
    )
    write_policy(folder / "policy.json", policy)
    return Settings(
        family=str(folder), policy=str(folder / "policy.json"), state=str(folder / "state")
    )  # fmt: skip


def test_one_line_says_that_all_is_as_measured(tmp_path: Path) -> None:
    """On such a machine the rows are run again, and that is all that is said."""
    write_measured_family(tmp_path, HERE, SEEDS)
    said: list[str] = []
    assign(settings_of(tmp_path), tmp_path, said.append)
    assert len(said) == 1
    assert said[0].startswith("2 variants answer 16 stored texts as measured")


def test_another_processor_is_told_with_a_line_per_variant(tmp_path: Path) -> None:
    """What this machine lacks comes first, then what became of each variant and how long that took."""
    write_measured_family(tmp_path, OTHER, SEEDS)
    said: list[str] = []
    assign(settings_of(tmp_path), tmp_path, said.append)
    assert "lacks amx_int8" in said[0]
    assert [line.split(" (")[0] for line in said[1:]] == [
        "small: answers as measured", "large: answers as measured"
    ]  # fmt: skip


def test_another_processor_is_told_where_nothing_is_stored_too(tmp_path: Path) -> None:
    """What cannot be tried is named; it is served, since nothing shows other answers."""
    family = write_measured_family(tmp_path, OTHER, SEEDS)
    write_family(tmp_path, family.model_copy(update={"predictions": None}))
    said: list[str] = []
    assign(settings_of(tmp_path), tmp_path, said.append)
    assert "lacks amx_int8" in said[0]
    assert said[1:] == ["small, large: no rows are stored to try: certificates are unchecked here"]
    write_family(tmp_path, family.model_copy(update={"predictions": None, "machine": HERE}))
    shutil.rmtree(tmp_path / "state")
    assign(settings_of(tmp_path), tmp_path, said.append)
    assert len(said) == 2


def test_a_certificate_about_other_answers_is_not_served(tmp_path: Path) -> None:
    """The start fails, names the variant and what to do, and leaves no revision behind."""
    write_measured_family(tmp_path, OTHER, SEEDS)
    compute_otherwise(tmp_path, "small", seed=1, shift=1.0)
    with pytest.raises(PolicyError, match="small gives other answers") as told:
        assign(settings_of(tmp_path), tmp_path)
    assert "sluice tune --uncertified" in str(told.value)
    assert open_revisions(str(tmp_path / "state")).latest() is None


def test_what_promises_nothing_is_served_and_told(tmp_path: Path) -> None:
    """Without a certificate the other answers are told, and the gateway starts."""
    write_measured_family(tmp_path, HERE, SEEDS)
    compute_otherwise(tmp_path, "small", seed=1, shift=1.0)
    said: list[str] = []
    assign(settings_of(tmp_path, certified=False), tmp_path, said.append)
    assert [line for line in said if line.startswith("small: gives other answers")]
    assert not [line for line in said if line.startswith("large")]


def test_a_certified_revision_in_force_is_held_to_it_too(tmp_path: Path) -> None:
    """A certified revision that stays in force is refused as a policy on the command line is."""
    write_measured_family(tmp_path, HERE, SEEDS)
    family = compute_otherwise(tmp_path, "small", seed=1, shift=1.0)
    assign(settings_of(tmp_path, certified=False), tmp_path)
    state = open_revisions(str(tmp_path / "state"))
    settings_of(tmp_path)
    certified = read_policy(tmp_path / "policy.json")
    latest = state.latest()
    assert latest is not None
    assert latest.family_sha256 == family.sha256
    state.commit(following(latest, latest.serving(certified), "push"))
    with pytest.raises(PolicyError, match="other answers than this machine gives"):
        assign(settings_of(tmp_path, certified=False), tmp_path)


@pytest.mark.anyio
async def test_a_policy_that_is_pushed_later_is_held_to_it(tmp_path: Path) -> None:
    """The control plane knows which variants answer otherwise: it takes no certificate over one of them."""
    write_measured_family(tmp_path, HERE, SEEDS)
    family = compute_otherwise(tmp_path, "small", seed=1, shift=1.0)
    given = assign(settings_of(tmp_path, certified=False), tmp_path)
    [started] = given.families.values()
    assert set(started.otherwise) == {"small"}
    state = open_revisions(str(tmp_path / "state"))
    plane = ControlPlane(state, lambda _: Examined(family, started.otherwise), WillingReplicas())
    uncertified = read_policy(tmp_path / "policy.json")
    settings_of(tmp_path)
    with pytest.raises(PolicyError, match="small gives other answers"):
        await plane.push(read_policy(tmp_path / "policy.json").dump())
    revision, _ = await plane.push(uncertified.dump())
    assert revision.number == 2


def test_a_gpu_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers on a GPU are said not to be compared, so that nobody takes silence for agreement."""
    write_measured_family(tmp_path, HERE, SEEDS)
    monkeypatch.setattr("serve.control.bootstrap.check_family_runs", lambda *_: None)
    said: list[str] = []
    assign(settings_of(tmp_path).model_copy(update={"provider": "cuda"}), tmp_path, said.append)
    assert "answers on cuda are not compared" in said[0]


def test_inspect_here_exits_3_where_answers_differ(tmp_path: Path) -> None:
    """The command runs the same rows, and says by its exit code whether all is as measured."""
    write_measured_family(tmp_path, OTHER, SEEDS)
    same = CliRunner().invoke(command, [str(tmp_path), "--here"])
    assert same.exit_code == 0
    assert "small: answers as measured" in same.output
    assert "lacks amx_int8" in " ".join(same.output.split())
    compute_otherwise(tmp_path, "small", seed=1, shift=1.0)
    other = CliRunner().invoke(command, [str(tmp_path), "--here"])
    assert "small: gives other answers" in other.output
    assert "other answers on this machine" in str(other.exception)
