"""The data plane with traffic shares: a canary answers its part, a shadow is shown answers off their path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from contract.errors import Overloaded, RequestError
from contract.live import Candidate
from contract.trial import TrialCounts, TrialKind
from serve.dataplane.plane import DataPlane
from serve.settings.gears import GearSettings
from serve.settings.limits import RequestLimits
from serve.settings.traffic import TrafficSettings
from serve.traffic.comparison import Comparison
from serve.traffic.load import CpuLoad
from serve.traffic.off_path import OffPath
from serve.traffic.shares import chosen
from serve.traffic.tally import ArmRecorder, TrialTally
from serve.types.clock import Clock
from serve.types.messages import CASCADE, ClassifyRequest, ClassifyResult
from serve.types.recorder import Recorder
from serve.types.stage import Snapshot, Snapshots, Trial


@dataclass(frozen=True, slots=True, eq=False)
class _Canary:
    candidate: Candidate
    plane: DataPlane
    tally: TrialTally
    comparison: Comparison


@dataclass(frozen=True, slots=True, eq=False)
class _Shadow:
    candidate: Candidate
    comparison: Comparison


@dataclass(frozen=True, slots=True, eq=False)
class _Arms:
    """What is on trial, on one snapshot."""

    canary: _Canary | None
    shadow: _Shadow | None
    tallies: tuple[TrialTally, ...]


class TrafficPlane(DataPlane):
    """Answers requests as the data plane does, and shares them out while there are candidates.

    Without candidates it costs one look at an attribute.

    Args:
        snapshots, limits, recorder, name, gears, clock: as for the data plane.
        settings: bounds of what is done off the path.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        limits: RequestLimits,
        recorder: Recorder,
        settings: TrafficSettings | None = None,
        name: str = "",
        *,
        gears: GearSettings | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(snapshots, limits, recorder, name, gears=gears, clock=clock)
        self._settings = settings or TrafficSettings()
        self._arms: _Arms | None = None
        self._draining = False
        self._tallies: dict[str, TrialTally] = {}
        self._planes: list[tuple[Snapshot, DataPlane | Comparison]] = []
        self._off_path: OffPath | None = None
        self._worker: asyncio.Task[None] | None = None

    def begin(self, request: ClassifyRequest) -> ClassifyResult | Coroutine[Any, Any, ClassifyResult]:
        """Return the answers if no text has to wait for one, else what finds them; see DataPlane."""
        arms = self._arms
        if arms is None:
            return super().begin(request)
        if self._off_path is not None:
            self._off_path.arrived()
        if request.model != CASCADE and self._shorten(request) != CASCADE:
            return super().begin(request)
        return self._share_out(request)

    def shift(self) -> None:
        """Take the gear that the load asks for, and have a canary take its own."""
        super().shift()
        if self._arms is not None and self._arms.canary is not None:
            self._arms.canary.plane.shift()

    def follow(self, snapshot: Snapshot) -> None:
        """Share out requests as the snapshot now in force says; call it in the same step as the flip."""
        if self._draining:
            return
        trials = snapshot.trials
        self._planes = [(of, plane) for of, plane in self._planes if plane.in_flight]
        if not trials:
            self._tallies = {}
            self._arms = None
            self._recorder = self._told
            self._stop_comparing()
            return
        self._tallies = {trial.candidate.id: self._tally_of(trial) for trial in trials}
        arms = _Arms(
            self._canary(trials, snapshot), self._shadow(trials, snapshot), (*self._tallies.values(),)
        )
        self._recorder = ArmRecorder([tally.live for tally in arms.tallies], self._told)
        if self._off_path is None:
            self._off_path = OffPath(
                self._settings, lambda: self._in_flight, CpuLoad(self._settings.busy_cpu_share)
            )
            self._worker = asyncio.get_running_loop().create_task(self._off_path.run())
        self._off_path.forget()
        self._arms = arms

    def _stop_comparing(self) -> None:
        """Let go of what waits, of its texts and of the models behind them."""
        if self._off_path is not None:
            self._off_path.forget()
            self._off_path = None
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None

    @property
    def waiting_texts(self) -> int:
        """Texts that wait for their comparison."""
        return 0 if self._off_path is None else self._off_path.waiting_texts

    def counts(self) -> dict[str, tuple[TrialKind, TrialCounts]]:
        """Return kind and counts of each trial in this process, by its id."""
        return {trial: (tally.kind, tally.counts()) for trial, tally in self._tallies.items()}

    async def drain(self) -> None:
        """Refuse new requests and be unready from now on; return once none is left inside."""
        self._draining = True
        self._arms = None
        self._stop_comparing()
        await super().drain()

    async def drained(self, snapshot: Snapshot) -> None:
        """Return once no request works on `snapshot`, nor on the candidates that it held."""
        await super().drained(snapshot)
        while any(of is snapshot and plane.in_flight for of, plane in self._planes):
            await asyncio.sleep(0.02)

    async def _share_out(self, request: ClassifyRequest) -> ClassifyResult:
        arms = self._arms
        canary = None if arms is None else arms.canary
        try:
            if (
                arms is not None
                and canary is not None
                and chosen(canary.candidate.id, canary.candidate.share, request.sticky_key)
            ):
                return await self._by_canary(arms, canary, request)
            return await self._by_live(arms, request)
        finally:
            if self._off_path is not None:
                self._off_path.freed()

    async def _by_live(self, arms: _Arms | None, request: ClassifyRequest) -> ClassifyResult:
        try:
            found = super().begin(request)
            result = found if isinstance(found, ClassifyResult) else await found
        except RequestError as problem:
            for tally in () if arms is None else arms.tallies:
                tally.live.refused(problem)
            raise
        shadow = None if arms is None else arms.shadow
        if (
            arms is not None
            and shadow is not None
            and chosen(shadow.candidate.id, shadow.candidate.share, request.sticky_key)
        ):
            self._compare(arms, shadow.comparison, request, result)
        return result

    async def _by_canary(self, arms: _Arms, canary: _Canary, request: ClassifyRequest) -> ClassifyResult:
        """Answer by the canary; its texts are inside this plane too, so that both arms have one room."""
        self._snapshots()
        texts = len(request.texts)
        inside = self._in_flight
        self._in_flight += texts
        try:
            if inside and inside + texts > self._limits.max_in_flight_texts:
                raise Overloaded("the gateway is full")
            result = await canary.plane.classify(request)
        except RequestError as problem:
            if canary.tally.candidate.refused(problem):
                self._compare(arms, canary.comparison, request, None)
            raise
        finally:
            self._in_flight -= texts
        self._compare(arms, canary.comparison, request, result)
        return result

    def _compare(
        self, arms: _Arms, comparison: Comparison, request: ClassifyRequest, result: ClassifyResult | None
    ) -> None:
        """Have an answer compared, unless what it would be compared with has gone out of force meanwhile."""
        if self._off_path is not None and arms is self._arms:
            self._off_path.offer(comparison, request.texts, result)
        else:
            comparison.tally.compared("shed", len(request.texts))

    def _tally_of(self, trial: Trial) -> TrialTally:
        known = self._tallies.get(trial.candidate.id)
        if known is not None:
            return known
        objective_ms = trial.candidate.rule.objective_ms
        return TrialTally(trial.kind, None if objective_ms is None else objective_ms / 1e3)

    def _canary(self, trials: tuple[Trial, ...], live: Snapshot) -> _Canary | None:
        trial = next((trial for trial in trials if trial.kind == "canary"), None)
        if trial is None:
            return None
        tally = self._tallies[trial.candidate.id]
        plane = DataPlane(
            lambda: self._snapshots() and trial.snapshot,
            self._limits,
            ArmRecorder([tally.candidate], self._told),
            gears=self._gears,
            clock=self._clock,
        )
        self._planes.append((live, plane))
        return _Canary(trial.candidate, plane, tally, self._comparison(trial, live))

    def _shadow(self, trials: tuple[Trial, ...], live: Snapshot) -> _Shadow | None:
        trial = next((trial for trial in trials if trial.kind == "shadow"), None)
        return None if trial is None else _Shadow(trial.candidate, self._comparison(trial, live))

    def _comparison(self, trial: Trial, live: Snapshot) -> Comparison:
        tally = self._tallies[trial.candidate.id]
        found = Comparison(trial, live, tally, self._limits, self._clock)
        self._planes.append((live, found))
        return found
