"""A running gateway whose threshold is swept, and its policy afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.errors import InputError, PolicyError
from contract.policy import Policy, parse_policy
from serve.control import admin_client
from serve.local.launcher import Handle
from sluicegate.main import cli
from sluicegate.threshold_dial import ThresholdDial

pytestmark = pytest.mark.ray


def in_force(gateway: Handle) -> dict[str, object]:
    """The revision in force."""
    return admin_client.show_policy(gateway.admin_url)


def test_a_dial_puts_back_what_was_in_force(gateway: Handle) -> None:
    """Other thresholds are revisions of their own, uncertified; the policy comes back whatever happens."""
    before = parse_policy(in_force(gateway)["policy"])
    turned: list[Policy] = []

    def interrupted() -> None:
        with ThresholdDial(gateway.admin_url) as dial:
            dial.turn(0.123)
            turned.append(parse_policy(in_force(gateway)["policy"]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (turned[0].stages[0].threshold, turned[0].status) == (0.123, "uncertified")
    assert parse_policy(in_force(gateway)["policy"]) == before


def test_a_change_by_somebody_else_stands(gateway: Handle) -> None:
    """The sweep ends with an error, and neither turns further nor puts its own back over theirs."""
    before = parse_policy(in_force(gateway)["policy"])
    theirs = before.model_copy(
        update={"stages": before.stages[1:], "status": "uncertified", "certificate": None}
    )
    with ThresholdDial(gateway.admin_url) as dial:
        dial.turn(0.2)
        admin_client.push_policy(theirs.sealed(), gateway.admin_url)
        with pytest.raises(PolicyError, match="somebody else"):
            dial.turn(0.3)
    assert parse_policy(in_force(gateway)["policy"]) == theirs.sealed()
    with pytest.raises(InputError, match="no threshold of any stage"), ThresholdDial(gateway.admin_url):
        pass
    admin_client.push_policy(before, gateway.admin_url)
    with (
        pytest.raises(InputError, match="--stage fake-small"),
        ThresholdDial(gateway.admin_url, stage="none"),
    ):
        pass


def test_a_sweep_over_thresholds_shows_what_each_costs(gateway: Handle, tmp_path: Path) -> None:
    """More escalates at a higher threshold, variants alone stand beside it, and the policy comes back."""
    before = parse_policy(in_force(gateway)["policy"])
    data = tmp_path / "texts.csv"
    data.write_text("text,label\n" + "".join(f"sport: story {n},sport\n" for n in range(60)))
    asked = [
        "sweep", gateway.url, "--data", str(data), "--slo-ms", "2000", "--thresholds", "0.3:0.95:2",
        "--rate", "40", "--duration", "1", "--warmup", "0.2", "--repeats", "1",
        "--admin-url", gateway.admin_url,
    ]  # fmt: skip
    done = CliRunner().invoke(cli, [*asked, "--json", "--out", str(tmp_path / "sweep")])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    rates = {point["name"]: point["escalation_rate"] for point in told["points"]}
    assert set(rates) >= {"0.3", "0.95", "fake-large", "fake-small"}
    assert rates["0.3"] < rates["0.95"]
    assert told["reference"] == "fake-large"
    assert told["recommended"] in rates
    assert parse_policy(in_force(gateway)["policy"]) == before
    shown = CliRunner().invoke(cli, asked, env={"COLUMNS": "200"})
    assert "keeps the limits" in shown.stdout
    assert CliRunner().invoke(cli, [*asked, "--rates", "1,2"]).exit_code == 2
    impossible = CliRunner().invoke(cli, [*asked, "--max-usd-per-1k", "1e-12"])
    assert "no point keeps the limits" in str(impossible.exception)
