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
from serve.settings.limits import RequestLimits
from serve.settings.traffic import TrafficSettings
from serve.traffic.comparison import Comparison
from serve.traffic.off_path import MachineLoad, OffPath
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
        snapshots, limits, recorder, clock: as for the data plane.
        settings: bounds of what is done off the path.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        limits: RequestLimits,
        recorder: Recorder,
        settings: TrafficSettings | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(snapshots, limits, recorder, clock=clock)
        self._told = recorder
        self._settings = settings or TrafficSettings()
        self._arms: _Arms | None = None
        self._tallies: dict[str, TrialTally] = {}
        self._planes: list[tuple[Snapshot, DataPlane | Comparison]] = []
        self._off_path: OffPath | None = None
        self._worker: asyncio.Task[None] | None = None

    def begin(self, request: ClassifyRequest) -> ClassifyResult | Coroutine[Any, Any, ClassifyResult]:
        """Return the answers if no text has to wait for one, else what finds them; see DataPlane."""
        arms = self._arms
        if arms is None or request.model != CASCADE:
            return super().begin(request)
        return self._share_out(arms, request)

    def follow(self, snapshot: Snapshot) -> None:
        """Share out requests as the snapshot now in force says; call it in the same step as the flip."""
        trials = snapshot.trials
        self._planes = [(of, plane) for of, plane in self._planes if plane.in_flight]
        if not trials:
            self._tallies = {}
            self._arms = None
            self._recorder = self._told
            if self._worker is not None:
                self._worker.cancel()
                self._worker = None
            return
        self._tallies = {trial.candidate.id: self._tally_of(trial) for trial in trials}
        arms = _Arms(
            self._canary(trials, snapshot), self._shadow(trials, snapshot), (*self._tallies.values(),)
        )
        self._recorder = ArmRecorder([tally.live for tally in arms.tallies], self._told)
        if self._off_path is not None:
            self._off_path.forget()
        if self._worker is None:
            self._off_path = OffPath(
                self._settings, lambda: self.live_texts, MachineLoad(self._settings.busy_cpu_share)
            )
            self._worker = asyncio.get_running_loop().create_task(self._off_path.run())
        self._arms = arms

    @property
    def live_texts(self) -> int:
        """Texts of live requests inside, whichever arm answers them."""
        arms = self._arms
        canary = 0 if arms is None or arms.canary is None else arms.canary.plane.in_flight
        return self.in_flight + canary

    @property
    def waiting_texts(self) -> int:
        """Texts that wait for their comparison."""
        return 0 if self._off_path is None else self._off_path.waiting_texts

    def counts(self) -> dict[str, tuple[TrialKind, TrialCounts]]:
        """Return kind and counts of each trial in this process, by its id."""
        return {trial: (tally.kind, tally.counts()) for trial, tally in self._tallies.items()}

    async def drain(self) -> None:
        """Refuse new requests and be unready from now on; return once none is left inside."""
        arms, self._arms = self._arms, None
        await super().drain()
        while arms is not None and arms.canary is not None and arms.canary.plane.in_flight:
            await asyncio.sleep(0.02)

    async def drained(self, snapshot: Snapshot) -> None:
        """Return once no request works on `snapshot`, nor on the candidates that it held."""
        await super().drained(snapshot)
        while any(of is snapshot and plane.in_flight for of, plane in self._planes):
            await asyncio.sleep(0.02)

    async def _share_out(self, arms: _Arms, request: ClassifyRequest) -> ClassifyResult:
        canary, shadow = arms.canary, arms.shadow
        try:
            if canary is not None and chosen(canary.candidate.id, canary.candidate.share, request.sticky_key):
                return await self._by_canary(canary, request)
            try:
                found = super().begin(request)
                result = found if isinstance(found, ClassifyResult) else await found
            except RequestError as problem:
                for tally in arms.tallies:
                    tally.live.refused(problem)
                raise
            if shadow is not None and chosen(shadow.candidate.id, shadow.candidate.share, request.sticky_key):
                self._compare(shadow.comparison, request, result)
            return result
        finally:
            if self._off_path is not None:
                self._off_path.freed()

    async def _by_canary(self, canary: _Canary, request: ClassifyRequest) -> ClassifyResult:
        inside = self.live_texts
        try:
            if inside and inside + len(request.texts) > self._limits.max_in_flight_texts:
                raise Overloaded("the gateway is full")
            result = await canary.plane.classify(request)
        except RequestError as problem:
            canary.tally.candidate.refused(problem)
            raise
        self._compare(canary.comparison, request, result)
        return result

    def _compare(self, comparison: Comparison, request: ClassifyRequest, result: ClassifyResult) -> None:
        if self._off_path is not None:
            self._off_path.offer(comparison, request.texts, result)

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
            lambda: trial.snapshot,
            self._limits,
            ArmRecorder([tally.candidate], self._told),
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
