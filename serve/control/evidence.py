"""Counts of trials, gathered from replicas and kept beside the revisions: they outlive both."""

from __future__ import annotations

import asyncio
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
from serve.control.revision_store import below
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
    asks how often. What a replica counted after it was last heard, and before it ended or died, is lost.
    Reading and writing is done in threads.

    Kept is each hundredth by which a trial grows, as `trials/ID/00000001.json` and so on, so that one of a
    million requests writes some hundred times, and a hundredth is lost when everything restarts at once.

    Args:
        objects: where the live state is kept.
        place: of the family that they are of, below it; empty: at its root.
    """

    def __init__(self, objects: Objects, place: str = "") -> None:
        self._objects = objects
        self._folder = below(place, "trials")
        self._by_replica: dict[str, dict[str, TrialCounts]] = {}
        self._kept: dict[str, tuple[int, int]] = {}

    def total(self, trial: str) -> TrialCounts:
        """Return the sum over all replicas, of what is known here."""
        return reduce(TrialCounts.plus, self._by_replica.get(trial, {}).values(), TrialCounts())

    def heard(self, trial: str, replica: str, raw: dict[str, Any]) -> None:
        """Take what a replica says."""
        self._by_replica.setdefault(trial, {})[replica] = TrialCounts.model_validate(raw)

    def knows(self, trial: str) -> bool:
        """Return whether what was written of a trial has been read, as far as it can be."""
        return trial in self._kept

    async def learn(self, trials: set[str]) -> None:
        """Read what was written of trials that this process does not know yet.

        A file that is no file of counts is passed over for the one before, at most a hundredth older. A
        store that cannot be asked is asked again the next time.
        """
        for trial in trials - self._kept.keys():
            try:
                found, number = await asyncio.to_thread(self._read, trial)
            except OSError:
                log.exception("counts of trials cannot be read now")
                continue
            if trial not in self._kept:
                self._by_replica[trial] = found | self._by_replica.get(trial, {})
                self._kept[trial] = number, sum(map(_size, found.values()))

    async def keep(self, trial: str) -> None:
        """Write what is known, where it has grown by a hundredth since it was written last.

        A store that cannot be asked costs nothing but that: what is known stays known here.
        """
        if trial not in self._kept:
            return
        size = _size(self.total(trial))
        number, written = self._kept[trial]
        if size <= 1.01 * written:
            return
        counts = KeptCounts(trial=trial, replicas=dict(self._by_replica.get(trial, {})))
        told = json.dumps(counts.model_dump(mode="json")).encode()
        try:
            await asyncio.to_thread(self._objects.create, self._key(trial, number + 1), told)
        except FileExistsError:  # by a control that has not ended yet
            size = written
        except OSError:
            log.exception("counts of trials cannot be kept now")
            return
        if trial in self._kept:
            self._kept[trial] = number + 1, size

    def forget_all_but(self, trials: set[str]) -> None:
        """Let go of trials that are over; what was written of them stays."""
        for trial in (self._by_replica.keys() | self._kept.keys()) - trials:
            self._by_replica.pop(trial, None)
            self._kept.pop(trial, None)

    def _read(self, trial: str) -> tuple[dict[str, TrialCounts], int]:
        """Return the newest counts that can be read, and the number of the newest file."""
        keys = self._objects.keys(f"{self._folder}/{trial}")
        for key in reversed(keys):
            where = self._objects.where(key)
            try:
                raw = json.loads(self._objects.read(key))
                counts = parse_record(KeptCounts, raw, where=where)
            except (ValueError, RecursionError, InputError) as problem:
                log.error("%s does not hold counts, the ones before it are taken: %s", where, problem)
            else:
                return dict(counts.replicas), _number(keys[-1])
        return {}, _number(keys[-1]) if keys else 0

    def _key(self, trial: str, number: int) -> str:
        return f"{self._folder}/{trial}/{number:08}.json"


def _number(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".json"))


def _size(counts: TrialCounts) -> int:
    return counts.live.requests + counts.candidate.requests + counts.candidate.failed + counts.pairs.n
