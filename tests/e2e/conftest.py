"""End-to-end fixtures: the built wheel, outside the repository, driven as a user would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
import uuid
import venv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from tests.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = "SLUICE_E2E_MARK"


@dataclass(frozen=True)
class Sluice:
    """The installed command in its own environment and working folder."""

    executable: Path
    cwd: Path
    mark: str

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start `sluice ARGUMENTS` in a process group of its own."""
        return subprocess.Popen(
            [str(self.executable), *map(str, arguments)],
            cwd=self.cwd,
            env=os.environ | {MARK: self.mark},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *arguments: str | Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `sluice ARGUMENTS` to its end."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            pytest.fail(f"sluice {arguments} took over {timeout_s} s\n{err[-4000:]}")
        return subprocess.CompletedProcess([], process.returncode, out, err)

    def shell(self, line: str, folder: Path, timeout_s: float) -> str:
        """Type a line into a shell that finds `sluice`, and return what it prints; it must end with 0."""
        environment = os.environ | {
            MARK: self.mark,
            "PATH": f"{self.executable.parent}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True,
            check=False, timeout=timeout_s,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def leftovers(self, *, wait_s: float = 10) -> list[str]:
        """Return the processes that carry our mark and are still there after `wait_s`."""
        _, alive = psutil.wait_procs(marked(self.mark), timeout=wait_s)
        left = []
        for process in alive:
            with suppress(psutil.NoSuchProcess):  # it has ended now
                left.append(" ".join(process.cmdline())[:200])
        return left


def marked(mark: str) -> list[psutil.Process]:
    """Return every process whose environment carries the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end_marked(mark: str) -> None:
    """Kill whatever carries the mark."""
    for process in marked(mark):
        with suppress(psutil.NoSuchProcess):  # it may have ended meanwhile
            process.kill()


def wait_ready(process: subprocess.Popen[str], url: str, *, attempts: int = 600) -> None:
    """Return once `/v2/health/ready` answers 200; fail with the server's words if it ends before."""
    for _ in range(attempts):
        if process.poll() is not None:
            out, err = process.communicate()
            pytest.fail(f"the gateway ended with {process.returncode}\n{out[-2000:]}\n{err[-4000:]}")
        try:
            with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=2) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    pytest.fail(f"{url} was never ready")


@pytest.fixture(scope="session")
def wheel_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment outside the repository with the built wheel: its `bin` folder."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    shutil.copytree(
        REPOSITORY,
        source,
        ignore=shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "sluicegate-demo", "__pycache__"),
    )
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(root), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    environment = root / "env"
    venv.create(environment, symlinks=True)
    packages = environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    # Only the dependencies: a .pth below a .pth is not read, so the editable install stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheel = next(root.glob("sluicegate-*.whl"))
    install = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install"]
    subprocess.run([*install, "--quiet", "--no-deps", str(wheel)], check=True)
    return environment / "bin"


@pytest.fixture(scope="session")
def sluice(wheel_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    """The installed command; whatever it leaves behind is ended after the session."""
    command = Sluice(wheel_bin / "sluice", tmp_path_factory.mktemp("user"), uuid.uuid4().hex)
    yield command
    end_marked(command.mark)


@pytest.fixture
def alone(sluice: Sluice) -> Iterator[Sluice]:
    """The same command with a mark of its own: what it leaves behind is what this test left behind."""
    command = replace(sluice, mark=uuid.uuid4().hex)
    yield command
    end_marked(command.mark)


@dataclass(frozen=True)
class Demo:
    """What `sluice demo --quick` left behind."""

    folder: Path
    output: str
    code: int

    @property
    def family(self) -> Path:
        """The family folder."""
        return self.folder / "family"

    @property
    def policy(self) -> Path:
        """The policy file."""
        return self.folder / "policy.json"


@pytest.fixture(scope="session")
def demo(sluice: Sluice) -> Demo:
    """The quick demo, run once for the session."""
    folder = sluice.cwd / "demo"
    done = sluice.run("demo", "--quick", "--json", "--out", folder, timeout_s=480)
    assert done.returncode in {0, 3}, done.stderr[-6000:]
    return Demo(folder, done.stdout, done.returncode)


@dataclass(frozen=True)
class Running:
    """A gateway that serves the quick family."""

    url: str
    admin_url: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def gateway(sluice: Sluice, demo: Demo) -> Iterator[Running]:
    """`sluice serve` on the quick family and its policy."""
    port, admin_port = free_port(), free_port()
    arguments: Sequence[str | Path] = (
        "serve", demo.family, "--policy", demo.policy, "--port", str(port), "--admin-port", str(admin_port),
        "--state", sluice.cwd / "state",
    )  # fmt: skip
    process = sluice.start(*arguments)
    running = Running(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}", process)
    try:
        wait_ready(process, running.url)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
