"""The page for auditors, typed as it stands: its three commands on a family, a policy and a state."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.policy import read_policy
from runtime.fake_family import write_fake_family
from serve.control.bootstrap import assign
from serve.settings.gateway import Settings
from sluicegate.main import cli
from tests.support.pages import blocks

PAGE = Path(__file__).parents[2] / "docs" / "auditing.md"


def test_its_commands_hold_on_what_was_just_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends with 0, and says what it looked at."""
    monkeypatch.chdir(tmp_path)
    write_fake_family(tmp_path / "family", delay_ms=0.0, rows=3000)
    asked = ["tune", "family", "--max-accuracy-drop", "0.03", "--out", "policy.json"]
    assert CliRunner().invoke(cli, asked).exit_code == 0
    assert read_policy(Path("policy.json")).status == "certified"
    told = {name: str(tmp_path / name) for name in ("family", "state")}
    assign(Settings.model_validate(told | {"policy": str(tmp_path / "policy.json")}), tmp_path)
    (commands,) = blocks(PAGE, "console")
    assert len(commands.splitlines()) == 3
    for command in commands.splitlines():
        sluice, *words = shlex.split(command)
        assert sluice == "sluice"
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
        assert "FAILS" not in done.output
