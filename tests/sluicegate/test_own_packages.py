"""Sluicegate's packages have common names: whatever else is called so, ours are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sluicegate.own_packages import HOME, hides, put_first

LOOK = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.path.append(sys.argv.pop())
from sluicegate.main import main
try:
    main()
finally:
    import contract.errors, report.render, serve
    print(report.__file__, *serve.__path__)
"""


@pytest.fixture
def hiding(tmp_path: Path) -> Path:
    """A folder with modules of our names."""
    (tmp_path / "report.py").write_text("raise SystemExit('hidden')")
    (tmp_path / "serve").mkdir()
    (tmp_path / "serve" / "__init__.py").write_text("raise SystemExit('hidden')")
    return tmp_path


def test_modules_of_the_same_names_hide_nothing(hiding: Path) -> None:
    """A `report.py` and a folder `serve`, here and on PYTHONPATH, are passed over, and told."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, "--version", str(HOME)],
        cwd=hiding,
        env=os.environ | {"PYTHONPATH": str(hiding)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split()[-2:] == [str(HOME / "report" / "__init__.py"), str(HOME / "serve")], (
        done.stderr
    )
    assert done.stderr.startswith(f"PYTHONPATH: {hiding} is left out")


def test_a_program_that_imports_sluicegate_searches_as_before(hiding: Path) -> None:
    """Only the command puts its own packages first: a program's own `report` stays what it imports."""
    look = "import os, sys; before = (list(sys.meta_path), dict(os.environ)); import sluicegate.main\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{look}print(before == (sys.meta_path, dict(os.environ)))"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(hiding), str(HOME)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


def test_processes_that_are_started_search_no_folder_that_hides_ours(
    hiding: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what hides our packages is taken from PYTHONPATH."""
    harmless = tmp_path_factory.mktemp("harmless")
    (harmless / "serve").mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hiding), str(harmless), str(HOME)]))
    assert put_first() == [str(hiding)]
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(harmless), str(HOME)])
    assert hides(hiding)
