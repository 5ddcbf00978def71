"""The proxy as one process: a gateway in front, and beside it the thread that supervises."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import EnvironmentProblem, InputError
from serve.local.launcher import run_until_stopped
from serve.settings.gateway import Settings
from sluicegate.proxy.plan import Plan
from sluicegate.proxy.recipe import asks_otherwise
from sluicegate.proxy.standing import SERVED, STANDING, read_standing
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
        EnvironmentProblem: another proxy is at work in the folder.
        InputError: see check_start; and as `run_until_stopped`.
    """
    with _only_one(plan.folder):
        check_start(plan)
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


def check_start(plan: Plan) -> None:
    """Check that a proxy may go on from where its folder stands.

    Raises:
        InputError: it shall only collect and a round is under way, or a family that is served asks another
            upstream than it would.
    """
    standing = read_standing(plan.folder)
    if not plan.trains and standing.phase != "collecting":
        raise InputError(
            f"a proxy has got as far as {standing.phase!r} here, and its family may be answering",
            where=plan.folder / STANDING,
            hint="sluice proxy goes on from there; give another --out to only collect",
        )
    served = [] if standing.in_force is None else [standing.in_force.round]
    served += [standing.round] if standing.phase in SERVED else []
    other = next(filter(None, (asks_otherwise(plan, plan.round_folder(number)) for number in served)), "")
    if other:
        raise InputError(
            f"the family that is served asks the upstream of an earlier start; other now: {other}",
            where=plan.folder / STANDING,
            hint="start as before, or begin anew with another --out",
        )


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / ".proxy.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentProblem(
                f"another proxy is at work in {folder}", hint="stop it, or give another --out"
            ) from None
        yield
