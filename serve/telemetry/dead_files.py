"""The metrics files of processes that have ended: their counts go into one file, their gauges end with them.

Else every replica that came and went would leave its files, and every scrape would read them all.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

log = logging.getLogger(__name__)

DEPLOY_PREFIX = "sluicegate-metrics-"
"""How the folders of deploys begin that lie side by side on a node of a cluster."""
_MERGED = "merged-"
_COUNTS = ("counter", "histogram")
_UNUSED_S = 600.0
"""A folder in which no file came or went for so long, and all of whose processes have ended, is nobody's."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Have the folder's files for one process and thread at a time, of those that scrape or merge."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tidy(folder: Path) -> None:
    """Merge what ended processes counted, and drop their gauges; called alone in the folder.

    Where there is no room for it everything stays as it is, and the figures are the same.
    """
    for file in folder.glob("gauge_live*_*.db"):
        if _is_dead(file):
            file.unlink(missing_ok=True)
    for kind in _COUNTS:
        try:
            _merge(folder, kind)
        except (OSError, RuntimeError, ValueError):
            log.exception("the metrics of ended processes stay in their files")


def remove_earlier_deploys(folder: Path) -> None:
    """Remove the folders of other deploys beside this one whose processes have all ended."""
    if not folder.name.startswith(DEPLOY_PREFIX):
        return
    for other in folder.parent.glob(f"{DEPLOY_PREFIX}*"):
        try:
            seen = other.lstat()
            ours = (
                other != folder and other.is_dir() and not other.is_symlink() and seen.st_uid == os.getuid()
            )
            if ours and time.time() - seen.st_mtime > _UNUSED_S and all(map(_is_over, other.glob("*.db"))):
                shutil.rmtree(other)
        except OSError:  # another process removes it too
            continue


def _merge(folder: Path, kind: str) -> None:
    """Put the counts of ended processes into a new file.

    What went into it is listed beside it before it appears, and deleted after: a process that is killed in
    between leaves either the files or the list by which the next one deletes them.
    """
    _finish(folder, kind)
    dead = [file for file in folder.glob(f"{kind}_*.db") if _is_dead(file)]
    if not dead:
        return
    before = list(folder.glob(f"{kind}_{_MERGED}*.db"))
    total: defaultdict[str, float] = defaultdict(float)
    for file in (*before, *dead):
        for key, value, *_ in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            total[key] += value
    number = 1 + max((int(file.stem.rpartition("-")[2]) for file in before), default=0)
    merged = folder / f"{kind}_{_MERGED}{number}.db"
    merged.with_suffix(".json").write_text(json.dumps([file.name for file in (*before, *dead)]))
    merged.with_suffix(".part").write_bytes(_mapped(total))
    merged.with_suffix(".part").rename(merged)
    _finish(folder, kind)


def _finish(folder: Path, kind: str) -> None:
    for listed in folder.glob(f"{kind}_{_MERGED}*.json"):
        if listed.with_suffix(".db").exists():
            for name in json.loads(listed.read_text()):
                (folder / name).unlink(missing_ok=True)
        listed.unlink()
    for part in folder.glob(f"{kind}_{_MERGED}*.part"):
        part.unlink()


def _mapped(counts: dict[str, float]) -> bytes:
    """Return a file as prometheus_client maps it, written and not mapped: a full disk is then an error."""
    entries = bytearray()
    for key, value in counts.items():
        encoded = key.encode()
        padded = encoded + b" " * (8 - (len(encoded) + 4) % 8)
        entries += struct.pack(f"i{len(padded)}sdd", len(encoded), padded, value, 0.0)
    return struct.pack("ii", 8 + len(entries), 0) + entries


def _is_dead(file: Path) -> bool:
    """Whether a file is of a process that has ended."""
    pid = file.stem.rpartition("_")[2]
    return pid.isdigit() and not Path(f"/proc/{pid}").exists()


def _is_over(file: Path) -> bool:
    """Whether no running process writes a file."""
    return file.stem.rpartition("_")[2].startswith(_MERGED) or _is_dead(file)
