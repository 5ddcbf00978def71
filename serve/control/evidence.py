"""Counts of trials, gathered from replicas and kept beside the revisions: they outlive both."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from pydantic import Field

from contract.errors import InputError
from contract.records import Frozen, parse_record
from contract.trial import TrialCounts
from serve.storage.objects import Objects

log = logging.getLogger(__name__)


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


class KeptCounts(Frozen):
    """Counts of one trial as they are kept: the last that each replica told."""

    trial: str
    replicas: dict[str, TrialCounts] = Field(default_factory=dict)


class Evidence:
    """The counts of trials by replica, the last known of those that are gone too.

    A replica's counts only grow, so that what it says last is all that it ever said: sums are exact, whoever
    asks how often. What a replica counted after it was last heard, and before it died, is lost.

    Kept is each hundredth by which a trial grows, as `trials/ID/00000001.json` and so on, so that one of a
    million requests writes some hundred times, and a hundredth is lost when everything restarts at once.

    Args:
        objects: where the live state is kept.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._by_replica: dict[str, dict[str, TrialCounts]] = {}
        self._kept: dict[str, tuple[int, int]] = {}

    def total(self, trial: str) -> TrialCounts:
        """Return the sum over all replicas."""
        return reduce(TrialCounts.plus, self._known(trial).values(), TrialCounts())

    def heard(self, trial: str, replica: str, raw: dict[str, Any]) -> None:
        """Take what a replica says."""
        self._known(trial)[replica] = TrialCounts.model_validate(raw)

    def keep(self, trial: str) -> None:
        """Write what is known, where it has grown by a hundredth since it was written last.

        A store that cannot be asked costs nothing but that: what is known stays known here.
        """
        known = self._known(trial)
        size = _size(self.total(trial))
        number, written = self._kept.get(trial, (0, 0))
        if size <= 1.01 * written:
            return
        counts = KeptCounts(trial=trial, replicas=known)
        told = json.dumps(counts.model_dump(mode="json")).encode()
        try:
            self._objects.create(_key(trial, number + 1), told)
        except FileExistsError:  # by a control that has not ended yet
            self._kept[trial] = number + 1, written
        except OSError:
            log.exception("counts of trials cannot be kept now")
        else:
            self._kept[trial] = number + 1, size

    def forget_all_but(self, trials: set[str]) -> None:
        """Let go of trials that are over; what was written of them stays."""
        for trial in self._by_replica.keys() - trials:
            del self._by_replica[trial]
            self._kept.pop(trial, None)

    def _known(self, trial: str) -> dict[str, TrialCounts]:
        if trial not in self._by_replica:
            self._by_replica[trial] = self._read(trial)
        return self._by_replica[trial]

    def _read(self, trial: str) -> dict[str, TrialCounts]:
        keys = self._objects.keys(f"trials/{trial}")
        if not keys:
            return {}
        where = self._objects.where(keys[-1])
        try:
            raw = json.loads(self._objects.read(keys[-1]))
        except (ValueError, RecursionError):
            raise InputError("it is not JSON", where=where) from None
        counts = parse_record(KeptCounts, raw, where=where)
        size = sum(_size(counted) for counted in counts.replicas.values())
        self._kept[trial] = int(keys[-1].rpartition("/")[2].removesuffix(".json")), size
        return dict(counts.replicas)


def _key(trial: str, number: int) -> str:
    return f"trials/{trial}/{number:08}.json"


def _size(counts: TrialCounts) -> int:
    return counts.live.requests + counts.candidate.requests + counts.candidate.failed + counts.pairs.n
