"""How commands end: targets that were missed, signals, and files that cannot be written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contract.errors import TargetNotMet
from contract.family import Family
from contract.policy import Policy, Stage
from runtime.fake_family import write_fake_family
from sluicegate import main as command_line
from sluicegate.compress_cmd import require_a_passing_variant
from sluicegate.demo_cmd import require_certified


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A family of fakes."""
    return write_fake_family(tmp_path_factory.mktemp("family"))


def _failing(family: Family, *names: str) -> Family:
    variants = tuple(
        v.model_copy(update={"failed_limits": ("accuracy drop",) if v.name in names else ()})
        for v in family.variants
    )
    return family.model_copy(update={"variants": variants})


def test_a_family_whose_variants_all_fail_misses_its_target(family: Family) -> None:
    """One variant beside the teacher has to pass, each failure is told, and a partial run is not judged."""
    others = [name for name in family.names if name != family.teacher]
    require_a_passing_variant(_failing(family, *others[1:]), partial=False)
    require_a_passing_variant(_failing(family, *others), partial=True)
    with pytest.raises(TargetNotMet, match=f"{others[0]}: accuracy drop"):
        require_a_passing_variant(_failing(family, *others), partial=False)


def test_a_teacher_that_passes_saves_no_family_and_one_alone_is_not_judged(family: Family) -> None:
    """Only other variants count, and where none was asked for there is nothing to miss."""
    teacher = family.variant(family.teacher).model_copy(update={"failed_limits": ("p99 9 ms, limit 5 ms",)})
    require_a_passing_variant(family.model_copy(update={"variants": (teacher,)}), partial=False)
    others = [name for name in family.names if name != family.teacher]
    with pytest.raises(TargetNotMet):
        require_a_passing_variant(_failing(family, *others), partial=False)


def test_a_demo_without_a_safe_threshold_misses_its_target(family: Family) -> None:
    """A policy that sends all to the reference misses the demo's target, one that is certified does not."""
    stages = (Stage(variant=family.teacher),)
    unsafe = Policy(status="no_safe_threshold", reference=family.teacher, stages=stages, needed_n=1234)
    with pytest.raises(TargetNotMet, match="1,234 labelled rows"):
        require_certified(unsafe)
    require_certified(unsafe.model_copy(update={"status": "certified"}))


def test_the_exit_code_of_a_missed_target_is_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """TargetNotMet is told on stderr and becomes exit code 3."""
    monkeypatch.setattr(command_line, "cli", _Raising(TargetNotMet("missed")))
    with pytest.raises(SystemExit) as left:
        command_line.main()
    assert left.value.code == 3


class _Raising:
    def __init__(self, problem: BaseException) -> None:
        self.problem = problem

    def main(self, **_: object) -> None:
        """Raise what was given."""
        raise self.problem


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """An --out below a file is an error with its path and exit code 1, without a traceback."""
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "sluicegate.main", "demo", "--quick", "--out"]
    done = subprocess.run(
        [*command, str(tmp_path / "file" / "demo")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


WAIT = """
import sys, time
from pathlib import Path
from compress.store import Store
from sluicegate import main
class Waits:
    def main(self, **_):
        store = Store(Path(sys.argv[1]))
        with store.locked(), store.working_folder("step", "a" * 64):
            print("working", flush=True)
            time.sleep(60)
main.cli = Waits()
main.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unwinds_what_a_command_had_begun(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and a closed terminal end a command as Ctrl-C does: code 130, and no half-made step is left."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    os.kill(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert not list(tmp_path.glob(".working-*"))


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    """A command under nohup outlives its terminal."""
    run = ["nohup", sys.executable, "-c", WAIT, str(tmp_path)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        os.kill(process.pid, signal.SIGHUP)
        os.kill(process.pid, signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("compress", 130, "interrupted; finished steps are kept, the same command goes on from there\n"),
        ("loadtest", 130, "interrupted; no run was written\n"),
        ("tune", 130, "interrupted\n"),
        ("serve", 0, ""),
    ],
)
def test_an_interrupted_command_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, code: int, words: str
) -> None:
    """What is kept is told by command; `serve` keeps its promise of 0 before there is anything to stop."""
    monkeypatch.setattr(sys, "argv", ["sluice", command, "more"])
    monkeypatch.setattr(command_line, "cli", _Raising(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as left:
        command_line.main()
    assert left.value.code == code
    assert capsys.readouterr().err == words


def test_closed_streams_are_no_trouble(tmp_path: Path) -> None:
    """With all three standard streams closed, files that are opened get other numbers than theirs."""
    report = tmp_path / "numbers"
    script = (
        "import os, sys; from sluicegate import main\n"
        "class Opens:\n"
        "    def main(self, **_):\n"
        "        file = open(sys.argv[1], 'w'); file.write(str(file.fileno() > 2)); print('lost')\n"
        "main.cli = Opens(); main.main()"
    )
    shell = f'exec "{sys.executable}" -c "$0" "$1" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, script, str(report)], check=False)
    assert done.returncode == 0
    assert report.read_text() == "True"


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    """A relative path from a folder that was removed is an error in words."""
    shell = f'cd "$0" && rmdir "$0" && exec "{sys.executable}" -m sluicegate serve family'
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(["sh", "-c", shell, str(gone)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the working directory is gone\n  try: cd to one that is there\n"
