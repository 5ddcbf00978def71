"""A gateway as a child process: started, waited for, and stopped whatever happens."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import EnvironmentProblem

READY_LIMIT_S = 90.0
STOP_LIMIT_S = 45.0


@contextmanager
def running_gateway(family: Path, policy: Path, folder: Path, *, port: int = 0) -> Iterator[str]:
    """Run `sluice serve` on a family and give its URL once every stage answers; stop it at the end.

    Its output goes to `folder/serve.log`. With port 0 a free one is taken. The child gets its own process
    group, so that Ctrl-C reaches it as one orderly SIGTERM, and ends with us if we are killed.

    Raises:
        EnvironmentProblem: when it ends before it is ready, with the last lines of its log.
    """
    taken = port or _free_port()
    url = f"http://127.0.0.1:{taken}"
    log = folder / "serve.log"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sluicegate.main", "serve", str(family), "--policy", str(policy)]
    command += ["--port", str(taken), "--admin-port", str(_free_port())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one prctl call, async-signal-safe
        )
        try:
            _wait_ready(process, url, log)
            yield url
        finally:
            _stop(process)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=2) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    words = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise EnvironmentProblem(f"the gateway did not become ready; the end of {log}:\n{words}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
