"""`sluice tune --cells` and `--max-share`, and `sluice simulate --mix` on texts of today."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from contract.decision import PARQUET
from contract.errors import PolicyError
from contract.files import write_json
from contract.predictions import write_predictions
from sluicegate.main import cli
from tests.router.mixed import traffic

FAR = ["--max-accuracy-drop", "0.05", "--reference", "large"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name a table of predictions and its costs."""
    folder = tmp_path_factory.mktemp("table")
    write_predictions(folder / "p.parquet", traffic(6000, 0.03, 1))
    write_json(folder / "c.json", {"cheap": {"usd_per_1k": 1.0}, "large": {"usd_per_1k": 10.0}})
    return ["--predictions", str(folder / "p.parquet"), "--costs", str(folder / "c.json")]


def run(*arguments: str) -> tuple[int, str]:
    """Return the exit code and the output of `sluice ARGUMENTS`."""
    done = CliRunner().invoke(cli, list(arguments))
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def policy(table: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A policy with cells by score."""
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    code, said = run("tune", *table, *FAR, "--cells", "score", "--out", str(path))
    assert code == 0, said
    assert "under every mix of cells by score" in said
    assert "Assumed:" in said
    return str(path)


def test_the_policy_keeps_its_cells(policy: str) -> None:
    """Cells stand in the policy with counts and bounds, none above the target."""
    told = json.loads(Path(policy).read_text())["mix"]
    assert told["by"] == "score"
    assert sum(cell["n"] for cell in told["cells"]) == 6000
    assert all(cell["bound"] <= 0.05 for cell in told["cells"])


def test_todays_bound_comes_from_predictions_and_from_decisions(
    policy: str, table: list[str], tmp_path: Path
) -> None:
    """Both say the same of the same texts, and no label is read."""
    rows = traffic(500, 0.2, 7)
    write_predictions(tmp_path / "today.parquet", rows)
    cheap = rows.variants["cheap"]
    stages = [
        [{"variant": "cheap", "score": score, "threshold": 0.5, "label": str(rows.labels[said])}]
        for said, score in zip(cheap.prediction.tolist(), cheap.confidence.tolist(), strict=True)
    ]
    columns = {"request_id": pa.array(list(map(str, range(500)))), "stages": pa.array(stages)}
    schema = pa.schema([PARQUET.field(name) for name in columns])
    pq.write_table(pa.table(columns).cast(schema), tmp_path / "decisions.parquet")
    found = []
    for name in ("today.parquet", "decisions.parquet"):
        code, said = run("simulate", *table, "--policy", policy, "--mix", str(tmp_path / name), "--json")
        assert code == 0, said
        found.append(json.loads(said)["mix"])
    assert found[0] == found[1]
    assert 0.0 < found[0]["bound"] < found[0]["worst"] <= 0.05
    assert np.isclose(sum(cell["share"] for cell in found[0]["cells"]) + found[0]["unseen"], 1.0)


def test_a_share_that_may_grow_is_promised_and_watched(table: list[str], tmp_path: Path) -> None:
    """The policy names the label and its limit, and today's share is told without labels."""
    path = str(tmp_path / "policy.json")
    code, said = run("tune", *table, *FAR, "--max-share", "other=0.2", "--out", path)
    assert code == 0, said
    assert "at any share of 'other' from 0 to 0.2" in said
    write_predictions(tmp_path / "today.parquet", traffic(3000, 0.7, 7))
    code, said = run("simulate", *table, "--policy", path, "--mix", str(tmp_path / "today.parquet"), "--json")
    assert code == 0, said
    assert json.loads(said)["mix"]["covered"] is False


def test_a_policy_without_cells_says_how_to_get_some(table: list[str], tmp_path: Path) -> None:
    """`--mix` with a plain policy is refused, with the command that makes cells."""
    path = str(tmp_path / "policy.json")
    assert run("tune", *table, *FAR, "--out", path)[0] == 0
    done = CliRunner().invoke(cli, ["simulate", *table, "--policy", path, "--mix", table[1]])
    assert isinstance(done.exception, PolicyError)
    assert "--cells auto" in str(done.exception.hint)
