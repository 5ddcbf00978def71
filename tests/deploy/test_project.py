"""What a newcomer meets first: the README's first screen, the workflow, the packaging."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ["3.11", "3.12", "3.13"]
NUMBER = r"[−-]?[\d,]+(?:\.\d+)?"


def _workflow(name: str) -> dict[str, Any]:
    read = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    assert isinstance(read, dict)
    return read


def _interval(cell: str) -> tuple[float, float]:
    found = re.search(rf"\[({NUMBER}), ({NUMBER})\]", cell)
    assert found is not None, f"{cell!r} has no interval"
    low, high = (float(end.replace(",", "").replace("−", "-")) for end in found.groups())
    return low, high


def test_first_screen_is_in_its_order() -> None:
    """One sentence, three commands without weights, `make demo`, the table, then the path of a request."""
    marks = [
        "An inference gateway that", "    pip install ", "    sluice serve --fake", "    curl ",
        "`make demo`", "\n| --- |", "HAProxy -> gateway replica",
    ]  # fmt: skip
    places = [README.index(mark) for mark in marks]
    assert places == sorted(places)
    before = README[: places[1]].removeprefix("# Sluicegate\n").strip()
    assert before.count(".") == 1, "more than one sentence before the commands"
    assert README[: places[-1]].count("\n") < 40


def test_bold_cells_are_really_apart() -> None:
    """The table has at most five rows, and a bold cell's interval overlaps no other of its row."""
    table = README[README.index("\n| BBC") :].partition("\n\n")[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert 1 <= len(rows) <= 5
    assert any("**" in cell for row in rows for cell in row[1:])
    for row in rows:
        for bold in (cell for cell in row[1:] if cell.startswith("**")):
            low, high = _interval(bold)
            for other in (_interval(cell) for cell in row[1:] if cell is not bold):
                assert high < other[0] or other[1] < low, f"{row[0]}: {bold} is not apart from {other}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=str)
def test_extras_that_pages_name_exist(page: Path) -> None:
    """Every `sluicegate[...]` and `.[...]` of a page asks for extras that pyproject has."""
    for names in re.findall(r"(?:sluicegate|'\.|`\.)\[([a-z,]+)\]", page.read_text()):
        assert set(names.split(",")) <= set(PROJECT["optional-dependencies"]), names


def test_workflow_runs_what_a_laptop_runs() -> None:
    """The workflow runs .ci/run and .ci/wheel on every Python that the package says it supports."""
    jobs = _workflow("ci.yml")["jobs"]
    for job, script in (("test", ".ci/run"), ("wheel", ".ci/wheel")):
        assert jobs[job]["strategy"]["matrix"]["python"] == PYTHONS
        assert script in [step.get("run") for step in jobs[job]["steps"]]
        assert (ROOT / script).stat().st_mode & 0o100
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_releases_are_published_from_ci_alone() -> None:
    """A tag builds and checks the wheel before a job without any key publishes it."""
    jobs = _workflow("release.yml")["jobs"]
    assert ".ci/wheel" in [step.get("run") for step in jobs["build"]["steps"]]
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_supported_pythons_are_said_alike() -> None:
    """Classifiers, `requires-python` and the workflow name the same versions of Python."""
    prefix = "Programming Language :: Python :: 3."
    said = ["3." + line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)]
    assert said == PYTHONS
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


def test_addresses_of_the_project_agree() -> None:
    """All project URLs, and those of the issue forms, lie below one repository."""
    home = PROJECT["urls"]["Homepage"]
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= set(PROJECT["urls"])
    assert all(url.startswith(home) for url in PROJECT["urls"].values())
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 3
    for form in forms:
        read = yaml.safe_load(form.read_text())
        for link in read.get("contact_links", ()):
            assert link["url"].startswith(home)
        assert form.name == "config.yml" or {"name", "description", "body"} <= set(read)


def test_hooks_and_packages_keep_their_files() -> None:
    """Pre-commit needs no host beside its own, and every package of the wheel carries py.typed."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "root_packages"
    ]:
        assert (ROOT / package / "py.typed").is_file(), package
