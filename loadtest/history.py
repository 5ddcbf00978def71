"""The runs that a folder keeps: listed, tagged, found again and pruned. What has a tag stays."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import InputError, RunError
from contract.files import read_json, write_json
from contract.run import REQUESTS, SUMMARY, Summary, read_summary

TAGS = "tags.json"
SWEEP = "sweep.json"
GOOD = "good"
"""Tag of runs that a gate passed: what the next run is held against."""

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DAY_S = 86_400.0
COMPARABLE = ("model", "protocol", "rate_asked_per_s", "arrivals", "data_sha256")


@dataclass(frozen=True)
class KeptRun:
    """One run of a folder.

    Attributes:
        folder: of the run.
        started_at_s: Unix seconds of its measured part; of runs that do not tell, when they were written.
        part_of_sweep: whether a `sweep.json` above names it, which would be broken without it.
    """

    folder: Path
    summary: Summary
    tags: tuple[str, ...]
    started_at_s: float
    part_of_sweep: bool

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "run": str(self.folder),
            "started_at_s": self.started_at_s,
            "tags": list(self.tags),
            "summary": self.summary.model_dump(mode="json"),
        }


def runs_in(root: Path) -> tuple[list[KeptRun], list[str]]:
    """Return the runs anywhere below a folder, oldest first, and in words what could not be read.

    Raises:
        RunError: there is no such folder.
    """
    if not root.is_dir():
        raise RunError("no folder of runs", where=root, hint="sluice loadtest ... --out DIR makes runs")
    found, broken = [], []
    for path in sorted(root.rglob(SUMMARY)):
        try:
            found.append(read_run(path.parent, root))
        except InputError as problem:
            broken.append(str(problem))
    return sorted(found, key=lambda run: (run.started_at_s, run.folder)), broken


def read_run(folder: Path, root: Path | None = None) -> KeptRun:
    """Return the run in a folder. Raises RunError.

    Args:
        folder: of the run.
        root: how far up a `sweep.json` is looked for; None: as far as two folders.
    """
    summary = read_summary(folder)
    started = summary.started_at_s
    above = (
        [*folder.parents][:2] if root is None else [up for up in folder.parents if up.is_relative_to(root)]
    )
    return KeptRun(
        folder,
        summary,
        read_tags(folder),
        (folder / SUMMARY).stat().st_mtime if started is None else started,
        any((up / SWEEP).exists() for up in above),
    )


def read_tags(folder: Path) -> tuple[str, ...]:
    """Return the tags of a run, sorted. Raises RunError."""
    path = folder / TAGS
    if not path.exists():
        return ()
    raw = read_json(path, error=RunError)
    tags = raw.get("tags") if isinstance(raw, dict) else None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise RunError('not {"tags": ["...", ...]}', where=path)
    return tuple(sorted(set(tags)))


def tag_run(folder: Path, add: Sequence[str] = (), remove: Sequence[str] = ()) -> tuple[str, ...]:
    """Give a run tags and take others away; return those it has then.

    Raises:
        RunError: no run is there.
        InputError: a tag has other characters than letters, digits, dot, dash and underscore, or is too long.
    """
    read_summary(folder)
    for tag in add:
        if not _TAG.fullmatch(tag):
            raise InputError(
                f"{tag!r} is no tag: up to 64 letters, digits, dots, dashes and underscores, "
                "the first a letter or a digit"
            )
    tags = sorted({*read_tags(folder), *add} - set(remove))
    if tags:
        write_json(folder / TAGS, {"schema": 1, "tags": tags})
    else:
        (folder / TAGS).unlink(missing_ok=True)
    return tuple(tags)


def last_good(root: Path, head: Path) -> Path | None:
    """Return the newest run below `root` that a gate passed and that was asked for the same as `head`.

    Raises:
        RunError: no run in `head`, or no folder `root`.
    """
    asked, here = read_summary(head), head.resolve()
    runs, _ = runs_in(root)
    fit = [
        run.folder
        for run in runs
        if GOOD in run.tags and run.summary.valid and run.folder.resolve() != here
        and all(getattr(run.summary, name) == getattr(asked, name) for name in COMPARABLE)
    ]  # fmt: skip
    return fit[-1] if fit else None


def to_prune(
    runs: Sequence[KeptRun], *, keep: int, older_than_days: float = 0.0, now_s: float | None = None
) -> list[KeptRun]:
    """Return the runs that may go: none of the newest `keep`, with no tag, in no sweep, and old enough.

    Args:
        runs: oldest first.
        keep: how many of the newest stay in any case.
        older_than_days: days that a run must be past.
        now_s: Unix seconds; None: now.
    """
    before = (time.time() if now_s is None else now_s) - older_than_days * _DAY_S
    old = runs[: max(0, len(runs) - keep)]
    return [r for r in old if not r.tags and not r.part_of_sweep and r.started_at_s <= before]


def remove(run: KeptRun) -> None:
    """Delete the files of a run, and its folder where nothing else is in it."""
    for name in (SUMMARY, REQUESTS, TAGS):
        (run.folder / name).unlink(missing_ok=True)
    if not any(run.folder.iterdir()):
        run.folder.rmdir()
