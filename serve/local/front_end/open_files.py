"""How many clients fit the limit of open files."""

from __future__ import annotations

import resource

from contract.errors import EnvironmentProblem

MOST_CONNECTIONS = 4096
LEAST_FILES = 1024
"""Below this Ray's own processes run out of files under load."""
_OWN = 100
"""Files that HAProxy needs besides those of connections: libraries, listeners, checks, its control socket."""


def connections_within(files: int) -> int:
    """Return how many clients' connections HAProxy can hold with so many open files.

    HAProxy opens a file to the client and one to the replica, and a pipe, which is two, for every fourth
    connection.
    """
    return max(1, min(MOST_CONNECTIONS, (files - _OWN) * 2 // 5))


def allowed_connections() -> int:
    """Return how many clients' connections the hard limit allows; Ray and HAProxy raise the soft one.

    Raises EnvironmentProblem where it is too low to serve.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    if hard < LEAST_FILES:
        raise EnvironmentProblem(
            f"the hard limit of open files is {hard}, and a gateway needs {LEAST_FILES} or more",
            hint="ulimit -Hn 65536 as root, LimitNOFILE= in a systemd unit, --ulimit nofile=65536 in Docker",
        )
    return connections_within(hard)
