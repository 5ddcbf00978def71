"""Counts of trials, gathered from replicas and kept in the state directory: they outlive both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

from contract.errors import InputError
from contract.files import read_json, write_json
from contract.records import parse_record
from contract.trial import TrialCounts


@dataclass(frozen=True)
class ReplicaCounts:
    """What one gateway process has counted since it started, by the trial's id, in JSON form."""

    replica: str
    trials: Mapping[str, dict[str, Any]]


class Witnesses(Protocol):
    """All gateway replicas at once."""

    async def counts(self) -> list[ReplicaCounts]:
        """Return what each that answers has counted. Raises NotReady when none does."""
        ...


class Evidence:
    """The counts of trials by replica, the last known of those that are gone too.

    A replica's counts only grow, so that what it says last is all that it ever said: sums are exact, whoever
    asks how often. What a replica counted after it was last heard, and before it died, is lost.

    Args:
        folder: the state directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "trials"
        self._by_replica: dict[str, dict[str, TrialCounts]] = {}
        self._written: dict[str, TrialCounts] = {}

    def total(self, trial: str) -> TrialCounts:
        """Return the sum over all replicas."""
        return reduce(TrialCounts.plus, self._known(trial).values(), TrialCounts())

    def heard(self, trial: str, replica: str, raw: dict[str, Any]) -> None:
        """Take what a replica says."""
        self._known(trial)[replica] = TrialCounts.model_validate(raw)

    def keep(self, trial: str) -> None:
        """Write what is known, where it has grown by a hundredth since it was written last."""
        total, written = self.total(trial), self._written.get(trial, TrialCounts())
        if _size(total) <= 1.01 * _size(written):
            return
        counts = {name: counts.model_dump(mode="json") for name, counts in self._known(trial).items()}
        write_json(self._path(trial), {"trial": trial, "replicas": counts})
        self._written[trial] = total

    def forget_all_but(self, trials: set[str]) -> None:
        """Let go of trials that are over; what was written of them stays."""
        for trial in self._by_replica.keys() - trials:
            del self._by_replica[trial]
            self._written.pop(trial, None)

    def _known(self, trial: str) -> dict[str, TrialCounts]:
        if trial not in self._by_replica:
            self._by_replica[trial] = self._read(trial)
        return self._by_replica[trial]

    def _read(self, trial: str) -> dict[str, TrialCounts]:
        path = self._path(trial)
        if not path.exists():
            return {}
        raw = read_json(path)
        if not isinstance(raw, dict) or not isinstance(raw.get("replicas"), dict):
            raise InputError("these are no counts of a trial", where=path)
        return {
            str(name): parse_record(TrialCounts, counts, where=path)
            for name, counts in raw["replicas"].items()
        }

    def _path(self, trial: str) -> Path:
        return self._folder / f"{trial}.json"


def _size(counts: TrialCounts) -> int:
    return counts.live.requests + counts.candidate.requests + counts.candidate.failed + counts.pairs.n
