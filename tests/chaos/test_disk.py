"""A disk without room, and a state directory that goes and comes back: what is served goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from contract.errors import SluiceError
from contract.policy import Policy
from loadtest.generator import Generator
from serve.control.admin_client import push_policy, show_policy
from tests.chaos.client import is_whole
from tests.chaos.house import House, serving
from tests.chaos.load import Harm, Load, offer
from tests.chaos.record import Case, Record
from tests.chaos.scene import Scene

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


def _push(house: House, threshold: float) -> str:
    """Push the policy in force with another threshold; return what speaks against it, empty for nothing."""
    try:
        policy = Policy.model_validate(show_policy(house.admin_url)["policy"])
        first, *rest = policy.stages
        stages = (first.model_copy(update={"threshold": threshold}), *rest)
        push_policy(policy.model_copy(update={"stages": stages}).sealed(), house.admin_url)
    except SluiceError as problem:
        return str(problem)
    return ""


def _fill(filler: Path) -> None:
    """Write until there is no room."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_refuses_a_push_and_nothing_else(scene: Scene, small_disk: Path) -> None:
    """Without room for a revision the old one stays in force, in words; with room again, the push goes."""
    if not os.path.ismount(small_disk):
        pytest.skip("this user may not mount a file system of its own to fill")
    filler = small_disk / "filler"
    said: list[str] = []

    def fill() -> None:
        _fill(filler)
        said.append(_push(scene.house, 0.7))

    tally = scene.offer(Load(8 if scene.is_whole else 1.5), Harm(fill, at_s=0.3), counted=True)
    filler.unlink()
    scene.record.add(Case("the disk of the state directory is full; a push in the middle", tally))
    assert tally.answered == tally.sent
    assert said[0]
    assert _push(scene.house, 0.75) == ""


def test_a_state_directory_that_vanishes_is_served_on_without(scene: Scene) -> None:
    """Requests are answered by what is in force; a push is refused; when it is back, pushes go again."""
    state = scene.house.state
    aside = state.with_name("aside")
    said: list[str] = []

    def vanish() -> None:
        state.rename(aside)
        said.append(_push(scene.house, 0.6))

    tally = scene.offer(Load(10 if scene.is_whole else 1.5), Harm(vanish, at_s=0.5), counted=True)
    if state.exists():
        pytest.fail(f"something was written where the state was: {list(state.iterdir())}")
    aside.rename(state)
    scene.record.add(Case("the state directory vanishes; a push in the middle", tally))
    assert tally.answered == tally.sent
    assert said[0]
    assert _push(scene.house, 0.65) == ""


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_a_full_disk_below_the_run_folder_ends_nothing(
    tmp_path: Path, generator: Generator, record: Record
) -> None:
    """Ray's logs, HAProxy's files and the metrics are there; requests are answered all the same."""
    place = Path("/sgd")
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system of its own to fill")
    try:
        with serving(tmp_path, tmp_path / "state", {**os.environ, "TMPDIR": str(place)}) as full:
            assert full.folder.is_relative_to(place)
            tally = offer(generator, full.url, Load(20), Harm(lambda: _fill(place / "filler")))
            record.add(Case("the disk of the run folder is full: logs, metrics, HAProxy's files", tally))
            assert tally.answered == tally.sent
            (place / "filler").unlink()
            assert is_whole(full.url)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()
