"""Finished steps on disk: one folder per step, named by a key, complete or absent."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import EnvironmentProblem, SluiceError
from contract.files import read_json, sha256_of_file, sha256_of_json, write_json

RECORD = "step.json"
WORKING = ".working-"


@dataclass(frozen=True)
class Finished:
    """A finished step.

    Attributes:
        step: its name.
        key: hash of everything that decided it.
        folder: where its files lie.
        files: sha256 by name.
        result: what it returned: JSON values.
        cost: seconds and, where it was metered, energy.
    """

    step: str
    key: str
    folder: Path
    files: Mapping[str, str]
    result: Mapping[str, Any]
    cost: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hash of what the step produced, for the keys of the steps that follow."""
        return sha256_of_json({"files": dict(self.files), "result": dict(self.result)})

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / name


class Store:
    """The finished steps of one family, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for writing, and clear what an interrupted run left half made.

        Raises:
            EnvironmentProblem: when another process holds it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise EnvironmentProblem(
                    f"another process is building in {self._folder.parent}",
                    hint="wait for it, or give another --out",
                ) from None
            for left in self._folder.glob(f"{WORKING}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def find(self, step: str, key: str) -> Finished | None:
        """Return the finished step of that key if every one of its files is there, unaltered."""
        folder = self._place(step, key)
        record = folder / RECORD
        if not record.is_file():
            return None
        try:
            raw = read_json(record)
            found = Finished(step, raw["key"], folder, raw["files"], raw["result"], raw["cost"])
            whole = found.key == key and all(
                sha256_of_file(folder / name) == digest for name, digest in found.files.items()
            )
        except (SluiceError, KeyError, TypeError, OSError):
            return None
        return found if whole else None

    @contextmanager
    def working_folder(self, step: str, key: str) -> Iterator[Path]:
        """Give an empty folder to work in; it is removed unless `finish` has taken it."""
        folder = self._folder / f"{WORKING}{step}-{key[:12]}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def finish(
        self, step: str, key: str, working: Path, result: Mapping[str, Any], cost: Mapping[str, Any]
    ) -> Finished:
        """Put a working folder in its place, in one rename, and drop older results of the step."""
        files = {
            path.relative_to(working).as_posix(): sha256_of_file(path)
            for path in sorted(working.rglob("*"))
            if path.is_file()
        }
        write_json(
            working / RECORD,
            {"step": step, "key": key, "files": files, "result": dict(result), "cost": dict(cost)},
        )
        place = self._place(step, key)
        for old in self._folder.glob(f"{step}@*"):
            shutil.rmtree(old, ignore_errors=True)
        working.rename(place)
        return Finished(step, key, place, files, result, cost)

    def _place(self, step: str, key: str) -> Path:
        return self._folder / f"{step}@{key[:16]}"
