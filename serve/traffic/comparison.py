"""What the other arm would have answered, and whom the reference is for: one text at a time."""

from __future__ import annotations

import random
from dataclasses import replace

from contract.errors import Overloaded, RequestError
from contract.policy import Limits
from contract.trial import TrialKind
from serve.dataplane.plane import DataPlane
from serve.settings.limits import RequestLimits
from serve.traffic.tally import ArmRecorder, ArmTally, PairOutcome, TrialTally
from serve.types.clock import Clock
from serve.types.messages import CASCADE, ClassifyRequest
from serve.types.priority import OFF_PATH_PRIORITY
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot, Trial


class Comparison:
    """Compares what an arm answered with what the other would have.

    The other arm is given time: policies are compared, not how long each waits behind live traffic.

    Args:
        trial: whose candidate is compared.
        live: the snapshot in force.
        tally: where outcomes are counted.
        limits: caps of a request.
        clock: seconds.
    """

    def __init__(
        self, trial: Trial, live: Snapshot, tally: TrialTally, limits: RequestLimits, clock: Clock
    ) -> None:
        self.kind: TrialKind = trial.kind
        self.tally = tally
        self._rule = trial.candidate.rule
        self._clock = clock
        limits = limits.model_copy(update={"objective_ms": None})
        other = trial.snapshot if trial.kind == "shadow" else live
        counted: list[ArmTally] = [tally.candidate] if trial.kind == "shadow" else []
        unhurried = _unhurried(other)
        self._other = DataPlane(lambda: unhurried, limits, ArmRecorder(counted, NoRecorder()), clock=clock)
        self._reference = live.policy.reference
        alone = _unhurried(live)
        self._judge = DataPlane(lambda: alone, limits, NoRecorder(), clock=clock)
        same_family = trial.snapshot.family.sha256 == live.family.sha256
        self._known = (True, same_family) if trial.kind == "shadow" else (same_family, True)

    @property
    def in_flight(self) -> int:
        """Texts under way."""
        return self._other.in_flight + self._judge.in_flight

    async def run(self, text: str, label: str, variant: str) -> PairOutcome:
        """Return what came of comparing one text that `variant` answered with `label`. Never raises."""
        request = self._request(CASCADE, text)
        try:
            result = await self._other.classify(request)
        except Overloaded:
            return "busy"
        except RequestError as problem:
            if self.kind == "shadow":
                self.tally.candidate.refused(problem)
            return "unresolved"
        if result.by_load:
            return "unresolved"
        other = result.label(0)
        if other == label:
            return "same"
        if self._rule.measured_by == "agreement" or random.random() >= self._rule.audit_share:
            return "unasked"
        live, candidate = (label, other) if self.kind == "shadow" else (other, label)
        answers = ((variant, label, self._known[0]), (result.variant[0], other, self._known[1]))
        said = next((a for v, a, same_build in answers if same_build and v == self._reference), None)
        if said is None:
            said = await self._ask_reference(text)
        if said is None:
            return "unresolved"
        return "worse" if said == live else "better" if said == candidate else "neither"

    async def _ask_reference(self, text: str) -> str | None:
        try:
            result = await self._judge.classify(self._request(self._reference, text))
        except RequestError:
            return None
        return result.label(0)

    def _request(self, model: str, text: str) -> ClassifyRequest:
        return ClassifyRequest(model, [text], None, self._clock(), priority=OFF_PATH_PRIORITY)


def _unhurried(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot without limits of time; the limit on escalations is the policy's own choice."""
    limits = Limits(max_escalation_rate=snapshot.policy.limits.max_escalation_rate)
    return replace(snapshot, policy=snapshot.policy.model_copy(update={"limits": limits}), trials=())
