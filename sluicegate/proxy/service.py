"""The proxy as one process: a gateway in front, and beside it the thread that supervises."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import EnvironmentProblem
from serve.local.launcher import run_until_stopped
from serve.settings.gateway import Settings
from sluicegate.proxy.plan import Plan
from sluicegate.proxy.supervisor import supervise


def run_proxy(
    plan: Plan, settings: Settings, say: Callable[[str], None], tell: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM, and go on from where the folder's proxy stands.

    Args:
        plan: what the proxy was told.
        settings: of its gateway.
        say: told what the gateway says.
        tell: told the proxy's line.

    Raises:
        EnvironmentProblem: another proxy is at work in the folder; and as `run_until_stopped`.
    """
    with _only_one(plan.folder):
        ended = threading.Event()
        thread = threading.Thread(
            target=supervise, args=(plan, ended.is_set, tell, ended.wait), name="supervisor", daemon=True
        )
        thread.start()
        try:
            run_until_stopped(settings, say)
        finally:
            ended.set()
            thread.join(15)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".proxy.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentProblem(
                f"another proxy is at work in {folder}", hint="stop it, or give another --out"
            ) from None
        yield
