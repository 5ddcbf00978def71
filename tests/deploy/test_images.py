"""The images, as far as a machine without Docker can tell."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

KINDS = ("cpu", "gpu")


def _instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, arguments) of a Dockerfile, continued lines joined, comments dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in found]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """cpu, then gpu."""
    return str(request.param)


@pytest.fixture
def instructions(deploy: Path, kind: str) -> list[tuple[str, str]]:
    """The instructions of one Dockerfile."""
    return _instructions((deploy / f"Dockerfile.{kind}").read_text())


def _of(instructions: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for found, rest in instructions if found == name]


def test_instructions_are_dockers(instructions: list[tuple[str, str]]) -> None:
    """Every line starts with an instruction, and the first is FROM a pinned image."""
    known = {"FROM", "ARG", "RUN", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE", "VOLUME", "STOPSIGNAL",
             "HEALTHCHECK", "ENTRYPOINT", "CMD"}  # fmt: skip
    assert {name for name, _ in instructions} <= known
    assert instructions[0][0] == "FROM"
    for image in _of(instructions, "FROM"):
        assert re.match(r"[a-z/]+:[0-9][\w.-]+", image), image


def test_container_is_not_root_stops_in_order_and_tells_its_health(
    instructions: list[tuple[str, str]],
) -> None:
    """The last user is not root, SIGTERM drains, tini reaps, and health is readiness."""
    assert _of(instructions, "USER")[-1] == "10001"
    assert _of(instructions, "STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(_of(instructions, "ENTRYPOINT")[-1]) == ["tini", "--", "sluice"]
    health = _of(instructions, "HEALTHCHECK")[-1]
    assert "/v2/health/ready" in health
    code = json.loads(health.partition("CMD ")[2])
    compile(code[2], "healthcheck", "exec")


def test_what_kuberays_probe_calls_is_there(instructions: list[tuple[str, str]]) -> None:
    """KubeRay asks workers by `bash -c "wget ..."`: without wget no worker would ever become ready."""
    *_, packages = [rest for rest in _of(instructions, "RUN") if "apt-get install" in rest]
    assert {"tini", "wget"} <= set(packages.partition("apt-get install")[2].partition("&&")[0].split())


def test_command_is_one_that_sluice_understands(instructions: list[tuple[str, str]]) -> None:
    """Every flag of the command exists."""
    from sluicegate.main import cli

    command = json.loads(_of(instructions, "CMD")[-1])
    shown = CliRunner().invoke(cli, [command[0], "--help"]).output
    for word in command:
        if word.startswith("--"):
            assert word in shown, word


def test_every_package_of_the_wheel_is_copied_and_let_through(
    deploy: Path, kind: str, instructions: list[tuple[str, str]]
) -> None:
    """The build stage gets what pyproject packs, and the ignore file does not hold it back."""
    project = tomllib.loads((deploy.parent / "pyproject.toml").read_text())
    packed = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    stage = [rest.split() for rest in _of(instructions, "COPY") if not rest.startswith("--from")]
    sources = {source for *found, _ in stage for source in found}
    let_through = {
        line[1:]
        for line in (deploy / f"Dockerfile.{kind}.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert packed <= sources
    assert sources == let_through
    assert project["project"]["readme"] in sources


def test_both_images_install_the_same_wheel_and_never_both_runtimes(deploy: Path) -> None:
    """The build stages are equal, and each image asks for its own extra only."""
    stages = {}
    for kind in KINDS:
        found = _instructions((deploy / f"Dockerfile.{kind}").read_text())
        second = [index for index, (name, _) in enumerate(found) if name == "FROM"][1]
        stages[kind] = found[:second]
        installs = " ".join(rest for name, rest in found[second:] if name == "RUN")
        assert f".whl)[serve,{kind},images,s3]" in installs
        assert f",{'gpu' if kind == 'cpu' else 'cpu'}" not in installs
        assert "--constraint" in installs
    assert stages["cpu"] == stages["gpu"]
