"""Room on the disk for the files of prometheus_client, taken before they are mapped.

It makes them larger without taking the room, and on a disk that fills up later the next write to such a page
ends the process with SIGBUS.
"""

from __future__ import annotations

import os
from pathlib import Path

KINDS = ("counter", "gauge_livesum", "histogram")
RESERVED_BYTES = 1 << 20
"""Of each file: thousands of series, more than the labels of a gateway make."""


def reserve(folder: Path) -> None:
    """Make this process's files there at their full size. Raises OSError where there is no room."""
    for kind in KINDS:
        path = folder / f"{kind}_{os.getpid()}.db"
        with path.open("ab") as file:
            if os.fstat(file.fileno()).st_size < RESERVED_BYTES:
                os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)
