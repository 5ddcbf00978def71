"""One family in one gateway process: follows its own live state, and answers from the snapshot in force."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from contract.errors import NotReady
from contract.family import Family
from contract.live import FamilyReference, Revision
from contract.trial import TrialCounts, TrialKind
from serve.control.follower import Follower
from serve.control.revision_store import RevisionStore
from serve.settings.gears import GearSettings
from serve.settings.limits import RequestLimits
from serve.settings.traffic import TrafficSettings
from serve.stages.loading import make_snapshot
from serve.traffic.plane import TrafficPlane
from serve.types.clock import Clock
from serve.types.recorder import Recorder
from serve.types.stage import Snapshot, Stage, Trial

StagesOf = Callable[[FamilyReference, str], Awaitable[tuple[Family, Mapping[str, Stage]]]]
"""Gives a family and its stages, by reference and by the name that it is served under."""


@dataclass(frozen=True)
class Surroundings:
    """What the families of one process share.

    Attributes:
        stages_of: loads what a family lacks here, and gives its stages.
        tidy: frees what no family needs any more.
        recorder_of: by the name that a family is served under.
        book_arms: told of what trials of a family have counted.
        limits: of requests, for each family by itself.
        traffic: bounds of comparisons.
        gears: how load moves policies along their gears.
        prepared_s: how long what was prepared is kept for a commit.
        clock: seconds.
    """

    stages_of: StagesOf
    tidy: Callable[[], None]
    recorder_of: Callable[[str], Recorder]
    book_arms: Callable[[Mapping[str, tuple[TrialKind, TrialCounts]], str], None]
    limits: RequestLimits
    traffic: TrafficSettings
    gears: GearSettings
    prepared_s: float
    clock: Clock


class ServedFamily:
    """A family under the name that it is served by.

    Args:
        name: that name.
        state: its live state.
        shared: what it has in common with other families.
    """

    def __init__(self, name: str, state: RevisionStore, shared: Surroundings) -> None:
        self.name = name
        self._shared = shared
        self._leaving: dict[Snapshot, frozenset[str]] = {}
        self._departures: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self.follower = Follower(
            state,
            self._load,
            self._flipped,
            self._share_out,
            idle=shared.tidy,
            prepared_s=shared.prepared_s,
            clock=shared.clock,
        )
        self.plane = TrafficPlane(
            self.follower.snapshot,
            shared.limits,
            shared.recorder_of(name),
            shared.traffic,
            name,
            gears=shared.gears,
        )

    @property
    def families(self) -> frozenset[str]:
        """Hashes of the families that are needed here, by what is in force, prepared, or still answered."""
        return self.follower.families.union(*self._leaving.values())

    def begin(self) -> None:
        """Follow the live state from now on."""
        if self._following is None:
            self._following = asyncio.create_task(self.follower.follow())

    async def leave(self) -> None:
        """Stop following; return once every request inside is answered."""
        if self._following is not None:
            self._following.cancel()
        await self.plane.drain()
        self.book_arms()

    def book_arms(self) -> None:
        """Have what trials counted booked."""
        self._shared.book_arms(self.plane.counts(), self.name)

    async def _load(self, revision: Revision) -> Snapshot:
        """Make a revision's snapshot; a family that is not here yet is loaded beside the one that is."""
        for reference in revision.families[1:]:
            await self._shared.stages_of(reference, self.name)
        family, stages = await self._shared.stages_of(revision.family, self.name)
        snapshot = make_snapshot(revision, family, stages)
        trials = [
            Trial(kind, candidate, await self._load(revision.serving(candidate.policy, candidate.family)))
            for kind, candidate in revision.trials()
        ]
        return replace(snapshot, trials=tuple(trials)) if trials else snapshot

    def _share_out(self, snapshot: Snapshot) -> None:
        self.book_arms()
        self.plane.follow(snapshot)

    def _flipped(self, before: Snapshot, families: frozenset[str]) -> None:
        self._leaving[before] = families
        task = asyncio.create_task(self._leave(before))
        self._departures.add(task)
        task.add_done_callback(self._departures.discard)

    async def _leave(self, before: Snapshot) -> None:
        """Free what only that snapshot needs, once no request works on it."""
        with suppress(NotReady):  # while it stops, nothing needs to be freed
            await self.plane.drained(before)
            del self._leaving[before]
            self._shared.tidy()
