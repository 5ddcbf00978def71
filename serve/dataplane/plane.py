"""The data plane: what every protocol asks, and where it is decided which stage answers. Knows no HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

import numpy as np

from contract.errors import (
    DeadlineExceeded,
    Overloaded,
    RequestError,
    StageFailed,
)
from contract.probabilities import softmax
from router.decide.cascade import ANSWER, Answer
from router.decide.scores import IntArray, score_one
from runtime.api import Logits
from serve.dataplane.escalation import StageTime
from serve.dataplane.plan import Plan
from serve.dataplane.request_state import RequestState
from serve.dataplane.served import Inside, Served
from serve.settings.gears import GearSettings
from serve.settings.limits import RequestLimits
from serve.types.clock import Clock
from serve.types.messages import CASCADE, ClassifyRequest, ClassifyResult, Texts
from serve.types.recorder import Recorder, RequestRecord
from serve.types.stage import Snapshots, Stage, wait_share_of

log = logging.getLogger(__name__)

_TO_PLAN_WITH = 0.9
"""Of the objective: the rest is for the way back to the client."""


class Terms(NamedTuple):
    """By when a request is to be answered: see serve.types.stage.Stage.logits."""

    deadline_at: float
    due_at: float | None
    priority: int


class DataPlane(Served):
    """Answers requests with the cascade or with one variant by name.

    Args:
        snapshots: gives the snapshot in force; raises NotReady.
        limits: admission and the longest time that a request may take.
        recorder: told once per answered request.
        name: that the family is served under; its models are then known by `NAME` and `NAME/variant` too.
        gears: how load moves a policy along its gears.
        clock: seconds; stages see deadlines on it.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        limits: RequestLimits,
        recorder: Recorder,
        name: str = "",
        *,
        gears: GearSettings | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(snapshots, name, gears)
        self._limits = limits
        self._recorder = self._told = recorder
        self._clock = clock
        self._times: dict[str, StageTime] = {}
        self._objective_s = None if limits.objective_ms is None else limits.objective_ms / 1e3

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """Answer every text of a request.

        Raises:
            UnknownModel, Overloaded, DeadlineExceeded, NotReady, StageFailed.
        """
        found = self.begin(request)
        return found if isinstance(found, ClassifyResult) else await found

    def begin(self, request: ClassifyRequest) -> ClassifyResult | Coroutine[Any, Any, ClassifyResult]:
        """Return the answers if no text has to wait for one, else what finds them, to be awaited.

        Raises as `classify`, which asks no more than this.
        """
        held = self._current()
        plan = held.plan
        cascade = request.model == CASCADE
        if not cascade and request.model not in plan.snapshot.stages:
            cascade = self._shorten(request) == CASCADE
        n = len(request.texts)
        if self._in_flight and self._in_flight + n > self._limits.max_in_flight_texts:
            raise Overloaded("the gateway is full")
        terms = self._terms(request, plan, cascade)
        classes = plan.compiled.classes
        if not cascade:
            stage = plan.snapshot.stages[request.model]
            logits = _at_once(stage, request.texts, classes, terms)
            if logits is not None:
                return self._single(plan, request, logits)
            return self._later(Inside(self, held, n), request, request.texts, terms, None)
        texts = Texts(request.texts) if plan.keeps_encoding else request.texts
        logits = _at_once(plan.steps[0].stage, texts, classes, terms)
        state = None
        if logits is not None:
            found = self._decide_first(plan, request, logits)
            if isinstance(found, ClassifyResult):
                return found
            state = found
        return self._later(Inside(self, held, n), request, texts, terms, state)

    async def _later(
        self,
        inside: Inside,
        request: ClassifyRequest,
        texts: Sequence[str],
        terms: Terms,
        state: RequestState | None,
    ) -> ClassifyResult:
        plan = inside.plan
        try:
            if request.model == CASCADE:
                return await self._wait_for_cascade(plan, request, texts, terms, state)
            return await self._wait_for_one(plan, request, terms)
        finally:
            inside.leave()

    @property
    def gear(self) -> str:
        """Name of the gear that new requests take; empty where the policy has none, or is not loaded yet."""
        held = self._held
        return "" if held is None else held.plan.gear

    def shift(self) -> None:
        """Take the gear that the load asks for. Called on a timer, so that no request is what decides it."""
        held = self._held
        if held is None or held.governor is None:
            return
        plan = held.plan
        objective_s = plan.objective_s or self._objective_s
        within_s = self._gears.wait_ms / 1e3 if plan.deadline_s is None else plan.deadline_s
        if objective_s is not None:
            within_s = _TO_PLAN_WITH * objective_s
        share = max((wait_share_of(stage, within_s) for stage in plan.watched), default=0.0)
        held.plan = held.plans[held.governor.look(self._clock(), share)]
        if held.plan is not plan:
            log.info(
                "%s: gear %s, after %s (%.0f%% of the time is waiting)",
                self._name or CASCADE,
                held.plan.gear,
                plan.gear,
                100 * share,
            )

    def whose(self, request: ClassifyRequest) -> tuple[str, Recorder] | None:
        """Return by which name and by whom a request that gets no answer is counted. See Plane."""
        return (self.local_name(request.model), self._told) if self.serves(request.model) else None

    def _shorten(self, request: ClassifyRequest) -> str:
        """Give the request the family's own name for its model, and return it. Raises UnknownModel."""
        local = self.local_name(request.model)
        if local != request.model:
            request.asked, request.model = request.asked or request.model, local
        return local

    def _terms(self, request: ClassifyRequest, plan: Plan, cascade: bool) -> Terms:
        """Return by when: the nearest limit that client, policy or gateway sets, and the objective."""
        limit_s = self._limits.max_seconds
        objective_s = self._objective_s
        if request.timeout_s is not None and request.timeout_s < limit_s:
            limit_s = request.timeout_s
        if cascade:
            if plan.deadline_s is not None and plan.deadline_s < limit_s:
                limit_s = plan.deadline_s
            if plan.objective_s is not None:
                objective_s = plan.objective_s
        arrived_at = request.arrived_at
        if objective_s is None:
            return Terms(arrived_at + limit_s, None, request.priority)
        return Terms(arrived_at + limit_s, arrived_at + _TO_PLAN_WITH * objective_s, request.priority)

    async def _wait_for_one(self, plan: Plan, request: ClassifyRequest, terms: Terms) -> ClassifyResult:
        stage = plan.snapshot.stages[request.model]
        return self._single(
            plan, request, await self._ask(stage, request.texts, plan.compiled.classes, terms)
        )

    def _single(self, plan: Plan, request: ClassifyRequest, logits: Logits) -> ClassifyResult:
        temperature = plan.temperatures[request.model]
        n = len(request.texts)
        if n == 1:
            one = score_one(logits[0], temperature)
            predicted, confidence = [one.predicted], [one.confidence]
        else:
            probabilities = softmax(logits, temperature)
            predicted = probabilities.argmax(axis=1).tolist()
            confidence = probabilities.max(axis=1).tolist()
        result = ClassifyResult(
            model=request.model,
            labels=plan.snapshot.family.labels,
            predicted=predicted,
            confidence=confidence,
            variant=[request.model] * n,
            escalated=[False] * n,
            degraded=[False] * n,
            logits=logits,
            temperatures=[temperature] * n,
            policy_version=None,
        )
        self._recorder.answered(
            RequestRecord(
                request.model,
                result.variant,
                confidence,
                self._clock() - request.arrived_at,
                caller=request.caller,
                first=request.model,
                prices=plan.prices,
            )
        )
        return result

    def _decide_first(
        self, plan: Plan, request: ClassifyRequest, logits: Logits
    ) -> ClassifyResult | RequestState:
        """Return the first stage's answers if all are accepted, else where the texts stand."""
        n = len(request.texts)
        if plan.budget is not None:
            plan.budget.earn(n)
        rules = plan.steps[0].rules
        if n == 1:
            one = rules.score_one(logits[0])
            to = plan.compiled.decide(0, one.predicted, one.score)
            if isinstance(to, Answer):
                return self._by_first(plan, request, logits, [one.predicted], [one.confidence])
            return RequestState(plan, logits, one.as_arrays(), np.array([to.next_index]))
        scored = rules.score_logits(logits)
        verdict = plan.compiled.decide_batch(0, scored.predicted, scored.score)
        if (verdict == ANSWER).all():
            return self._by_first(
                plan, request, logits, scored.predicted.tolist(), scored.confidence.tolist()
            )
        return RequestState(plan, logits, scored, verdict)

    def _by_first(
        self,
        plan: Plan,
        request: ClassifyRequest,
        logits: Logits,
        predicted: list[int],
        confidence: list[float],
    ) -> ClassifyResult:
        n = len(predicted)
        first = plan.steps[0]
        result = ClassifyResult(
            model=CASCADE,
            labels=plan.snapshot.family.labels,
            predicted=predicted,
            confidence=confidence,
            variant=[first.rules.variant] * n,
            escalated=[False] * n,
            degraded=[False] * n,
            logits=logits,
            temperatures=[first.temperature] * n,
            policy_version=plan.snapshot.policy.version,
            certified=plan.certified,
            abstained=() if plan.abstains_at is None else [False] * n,
            gear=plan.gear,
        )
        self._recorder.answered(
            RequestRecord(
                CASCADE,
                result.variant,
                confidence,
                self._clock() - request.arrived_at,
                caller=request.caller,
                first=first.rules.variant,
                prices=plan.prices,
            )
        )
        return result

    async def _wait_for_cascade(
        self,
        plan: Plan,
        request: ClassifyRequest,
        texts: Sequence[str],
        terms: Terms,
        state: RequestState | None,
    ) -> ClassifyResult:
        if state is None:
            logits = await self._ask(plan.steps[0].stage, texts, plan.compiled.classes, terms)
            found = self._decide_first(plan, request, logits)
            if isinstance(found, ClassifyResult):
                return found
            state = found
        if plan.shares_encoder and not isinstance(texts, Texts):
            texts = Texts(texts)
        await self._escalate(plan, state, texts, terms)
        result = state.result()
        self._recorder.answered(
            RequestRecord(
                CASCADE,
                result.variant,
                result.confidence,
                self._clock() - request.arrived_at,
                state.seconds,
                state.escalations,
                state.degradations,
                request.caller,
                plan.steps[0].rules.variant,
                plan.prices,
                sum(result.abstained),
            )
        )
        return result

    async def _escalate(self, plan: Plan, state: RequestState, texts: Sequence[str], terms: Terms) -> None:
        """Take the texts that no stage has answered yet through the later stages.

        An answer is in hand: where a later one would miss the objective, that one stands.
        """
        deadline_at = terms.deadline_at
        if terms.due_at is not None and terms.due_at < deadline_at:
            terms = Terms(terms.due_at, terms.due_at, terms.priority)
        for step in plan.steps[1:]:
            rows = np.flatnonzero(state.going_to == step.rules.index)
            if len(rows) == 0:
                continue
            started = self._clock()
            time_of = self._times.setdefault(step.rules.variant, StageTime())
            if started + time_of.expected_s(len(rows)) >= deadline_at:
                time_of.doubt()
                state.degrade(rows, "deadline")
                continue
            if plan.budget is not None:
                rows = state.pay(rows, plan.budget)
                if len(rows) == 0:
                    continue
            try:
                logits = await self._ask(step.stage, _chosen(texts, rows), plan.compiled.classes, terms)
            except DeadlineExceeded:
                state.degrade(rows, "deadline")
            except Overloaded:
                state.degrade(rows, "overloaded")
            except RequestError:
                state.degrade(rows, "failed")
            else:
                state.answer(step, rows, logits)
            state.seconds += self._clock() - started

    async def _ask(self, stage: Stage, texts: Sequence[str], classes: int, terms: Terms) -> Logits:
        """Ask a stage, and stop waiting at the deadline even if the stage does not."""
        started = self._clock()
        logits = _at_once(stage, texts, classes, terms)
        if logits is not None:
            self._learn(stage.variant, self._clock() - started, len(texts))
            return logits
        try:
            async with asyncio.timeout(terms.deadline_at - started):
                logits = await stage.logits(texts, *terms)
        except TimeoutError:
            self._learn(stage.variant, self._clock() - started, len(texts))
            raise DeadlineExceeded("the deadline passed before there was an answer") from None
        except RequestError:
            raise
        except Exception as problem:
            log.exception("stage %s raised what no stage should", stage.variant)
            raise StageFailed(f"{stage.variant} failed on this request") from problem
        self._learn(stage.variant, self._clock() - started, len(texts))
        _check_shape(stage, logits, len(texts), classes)
        return logits

    def _learn(self, variant: str, seconds: float, texts: int) -> None:
        time_of = self._times.get(variant)
        if time_of is None:
            time_of = self._times[variant] = StageTime()
        time_of.learn(seconds, texts)


def _at_once(stage: Stage, texts: Sequence[str], classes: int, terms: Terms) -> Logits | None:
    """Return a stage's logits if it has them now."""
    try:
        logits = stage.logits_now(texts, terms.deadline_at)
    except RequestError:
        raise
    except Exception as problem:
        log.exception("stage %s raised what no stage should", stage.variant)
        raise StageFailed(f"{stage.variant} failed on this request") from problem
    if logits is not None:
        _check_shape(stage, logits, len(texts), classes)
    return logits


def _check_shape(stage: Stage, logits: Logits, texts: int, classes: int) -> None:
    if logits.shape != (texts, classes):
        log.error("stage %s gave logits of shape %s", stage.variant, logits.shape)
        raise StageFailed(f"{stage.variant} gave no usable answer")


def _chosen(texts: Sequence[str], rows: IntArray) -> Sequence[str]:
    if len(rows) == len(texts):
        return texts
    if isinstance(texts, Texts):
        return texts.rows(rows.tolist())
    return [texts[row] for row in rows.tolist()]
