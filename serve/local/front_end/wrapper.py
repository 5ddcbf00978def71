"""What Ray runs in place of HAProxy: rewrite the configuration, fetch the sockets, then become HAProxy.

Ray starts HAProxy anew for every change of its back ends, so this imports the standard library and two small
modules and no more. It becomes HAProxy, under the same process id and with the same arguments: by these Ray
recognises it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

PYTHON = "SLUICE_PYTHON"
FRONT_END = "SLUICE_FRONT_END"
HAPROXY = "SLUICE_HAPROXY"
KEEPER = "SLUICE_KEEPER"
"""Environment variables: the interpreter, the front end as JSON, the real HAProxy, the keeper's address."""


def main() -> None:
    """Rewrite the file behind `-f` in place, and execute HAProxy.

    Where a keeper is told of, the sockets are its own, and who served before ends as `-sf` asks. Where it is
    gone, the whole run is about to end; until then HAProxy binds for itself.
    """
    sys.path.append(str(Path(__file__).resolve().parents[3]))  # last: site-packages may hold anything
    from contract.errors import SluiceError
    from serve.local.front_end.frontend import FrontEnd
    from serve.local.front_end.listeners import inherited_binds, named
    from serve.local.front_end.rewrite import UNAVAILABLE, rewrite

    arguments = sys.argv[1:]
    config = Path(arguments[arguments.index("-f") + 1])
    front = FrontEnd.load(os.environ[FRONT_END])
    unavailable = config.with_name("503.http")
    unavailable.write_text(UNAVAILABLE, newline="")
    beside = config.with_name(f".{config.name}.rewritten")
    taken_over = _replaced(arguments)
    asked = config.read_text()

    def write(binds: list[str] | None) -> None:
        try:
            beside.write_text(rewrite(asked, front, str(unavailable), binds))
        except SluiceError as problem:
            sys.exit(str(problem))

    write(inherited_binds(len(front.addresses)) if KEEPER in os.environ else None)
    environment = dict(os.environ)
    if KEEPER in os.environ:
        kept = _fetch(os.environ[KEEPER], beside, bool(taken_over))
        if kept is None:
            write(None)
        elif not kept.descriptors:
            write([f"unix@{config.with_name('idle.sock')}"])
        else:
            environment |= named(kept.descriptors)
            arguments = replacing(arguments, [str(pid) for pid in kept.retire])
    beside.replace(config)
    os.execve(os.environ[HAPROXY], [os.environ[HAPROXY], *arguments], environment)


def _replaced(arguments: list[str]) -> list[str]:
    """Return the process ids behind `-sf`."""
    if "-sf" not in arguments:
        return []
    return list(takewhile(str.isdigit, arguments[arguments.index("-sf") + 1 :]))


def replacing(arguments: list[str], pids: list[str]) -> list[str]:
    """Return the arguments with more process ids behind `-sf`."""
    known = _replaced(arguments)
    more = [pid for pid in pids if pid not in known]
    if not more:
        return arguments
    if not known:
        return [*arguments, "-sf", *more]
    at = arguments.index("-sf") + 1
    return [*arguments[:at], *more, *arguments[at:]]


@dataclass(frozen=True)
class Kept:
    """What the keeper has handed over: the sockets, none where HAProxy shall wait; and whom to end."""

    descriptors: tuple[int, ...]
    retire: tuple[int, ...]


def _fetch(keeper: str, config: Path, takes_over: bool) -> Kept | None:
    """Ask the keeper; None where there is none any more."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.settimeout(5.0)
            asking.connect(keeper)
            asking.send(json.dumps({"config": str(config), "takes_over": takes_over}).encode())
            answer, descriptors, _, _ = socket.recv_fds(asking, 65536, 64)
            told = json.loads(answer)
    except (OSError, ValueError):
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    return Kept(tuple(descriptors), tuple(told["retire"]))


if __name__ == "__main__":
    main()
