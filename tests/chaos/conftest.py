"""One gateway for all cases, one generator, and the record of what they came to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator as Yields
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.generator import Generator
from tests.chaos.house import House, serving
from tests.chaos.load import RATE
from tests.chaos.record import Record
from tests.chaos.scene import Scene

FAILED: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Yields[None, pytest.TestReport, pytest.TestReport]:
    """Note which tests fail, so that the page names them."""
    report = yield
    if report.failed:
        item.config.stash.setdefault(FAILED, []).append(item.name)
    return report


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether every case is asked for, at its full length."""
    return bool(request.config.getoption("--chaos"))


@pytest.fixture(scope="package")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of a megabyte where one may be mounted, else a folder without a limit."""
    place = tmp_path_factory.mktemp("disk")
    mount = shutil.which("mount")
    mounted = (
        mount is not None
        and os.geteuid() == 0
        and (
            subprocess.run(
                [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
            ).returncode
            == 0
        )
    )
    (place / "state").mkdir()
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory, small_disk: Path) -> Iterator[House]:
    """The gateway, its state on the small disk."""
    with serving(tmp_path_factory.mktemp("house"), small_disk / "state", dict(os.environ)) as running:
        yield running


@pytest.fixture(scope="package")
def generator() -> Iterator[Generator]:
    """The project's load generator."""
    with Generator() as running:
        yield running


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest, whole: bool) -> Iterator[Record]:
    """What the cases came to; the page is written when all of them ran."""
    kept = Record("make chaos", RATE)
    yield kept
    kept.failed = request.config.stash.get(FAILED, [])
    if whole and (kept.rows or kept.bodies or kept.failed):
        kept.write()


@pytest.fixture
def scene(house: House, generator: Generator, record: Record, whole: bool) -> Scene:
    """All of these."""
    return Scene(house, generator, record, whole)
