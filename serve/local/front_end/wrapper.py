"""What Ray runs in place of HAProxy: rewrite the configuration, then become HAProxy.

Ray starts HAProxy anew for every change of its back ends, so this imports the standard library and two small
modules and no more. It becomes HAProxy, under the same process id and with the same arguments: by these Ray
recognises it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PYTHON = "SLUICE_PYTHON"
FRONT_END = "SLUICE_FRONT_END"
HAPROXY = "SLUICE_HAPROXY"
"""Environment variables: the interpreter, the front end as JSON, and the real HAProxy."""


def main() -> None:
    """Rewrite the file behind `-f` in place, and execute HAProxy."""
    sys.path.append(str(Path(__file__).resolve().parents[3]))  # last: site-packages may hold anything
    from contract.errors import SluiceError
    from serve.local.front_end.frontend import FrontEnd
    from serve.local.front_end.rewrite import UNAVAILABLE, rewrite

    arguments = sys.argv[1:]
    config = Path(arguments[arguments.index("-f") + 1])
    front = FrontEnd.load(os.environ[FRONT_END])
    unavailable = config.with_name("503.http")
    unavailable.write_text(UNAVAILABLE, newline="")
    try:
        written = rewrite(config.read_text(), front, str(unavailable))
    except SluiceError as problem:
        sys.exit(str(problem))
    beside = config.with_name(f".{config.name}.rewritten")
    beside.write_text(written)
    beside.replace(config)
    os.execv(os.environ[HAPROXY], [os.environ[HAPROXY], *arguments])


if __name__ == "__main__":
    main()
