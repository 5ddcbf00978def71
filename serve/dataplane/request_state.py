"""Where each text of one request stands on its way through the cascade. No clock."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contract.policy import ABSTAIN
from router.decide.cascade import ANSWER, Answer
from router.decide.scores import IntArray, Scored
from runtime.api import Logits
from serve.dataplane.escalation import EscalationBudget
from serve.dataplane.plan import Plan, Step
from serve.types.messages import CASCADE, ClassifyResult
from serve.types.recorder import DegradedReason

NOT_RUN = -9


class RequestState:
    """Where each of N texts of one request stands on its way through the stages."""

    def __init__(self, plan: Plan, logits: Logits, scored: Scored, verdict: IntArray) -> None:
        n = len(verdict)
        self._plan = plan
        self._stands_at = ANSWER if plan.abstains_at is None else plan.abstains_at
        self.going_to = verdict
        self.at = np.zeros(n, dtype=np.int64)
        self.predicted = scored.predicted.copy()
        self.confidence = scored.confidence.copy()
        self.score = scored.score.copy()
        self.logits = logits.copy()
        self.degraded = np.zeros(n, dtype=bool)
        self.by_load: NDArray[np.bool_] | None = None
        self.seen: NDArray[np.int64] | None = None
        if plan.votes:
            self.seen = np.full((n, len(plan.steps)), NOT_RUN, dtype=np.int64)
            self.seen[:, 0] = scored.predicted
        self.seconds = 0.0
        self.escalations: list[tuple[str, str, int]] = []
        self.degradations: list[tuple[DegradedReason, int]] = []

    def pay(self, rows: IntArray, budget: EscalationBudget) -> IntArray:
        """Return the rows that the budget lets go on, the least sure first; for the others, degrade.

        A text pays when it leaves the first stage and never again: it counts as one escalated text.
        """
        paying = rows[self.at[rows] == 0]
        granted = budget.spend(len(paying))
        if granted == len(paying):
            return rows
        surest_last = paying[np.argsort(self.score[paying], kind="stable")]
        self.degrade(surest_last[granted:], "budget")
        left: IntArray = rows[~self.degraded[rows]]
        return left

    def degrade(self, rows: IntArray, reason: DegradedReason) -> None:
        """Let the answers in hand stand for `rows`; under a policy that abstains nobody answers them."""
        self.going_to[rows] = self._stands_at
        self.degraded[rows] = True
        if reason != "budget":
            if self.by_load is None:
                self.by_load = np.zeros(len(self.degraded), dtype=bool)
            self.by_load[rows] = True
        self.degradations.append((reason, len(rows)))

    def answer(self, step: Step, rows: IntArray, logits: Logits) -> None:
        """Take a stage's logits for `rows`, and decide again."""
        index = step.rules.index
        if len(rows) == 1 and self.seen is None:
            self._answer_one(step, int(rows[0]), logits)
            return
        scored = step.rules.score_logits(logits, None if self.seen is None else self.seen[rows, :index])
        for origin in np.unique(self.at[rows]).tolist():
            self.escalations.append(
                (
                    self._plan.steps[origin].rules.variant,
                    step.rules.variant,
                    int((self.at[rows] == origin).sum()),
                )
            )
        if self.seen is not None:
            self.seen[rows, index] = scored.predicted
        self.at[rows] = index
        self.predicted[rows] = scored.predicted
        self.confidence[rows] = scored.confidence
        self.score[rows] = scored.score
        self.logits[rows] = logits
        self.going_to[rows] = self._plan.compiled.decide_batch(index, scored.predicted, scored.score)

    def _answer_one(self, step: Step, row: int, logits: Logits) -> None:
        """Do the same for one row: arrays of one cost more than what they hold."""
        index = step.rules.index
        one = step.rules.score_one(logits[0])
        verdict = self._plan.compiled.decide(index, one.predicted, one.score)
        origin = self._plan.steps[int(self.at[row])].rules.variant
        self.escalations.append((origin, step.rules.variant, 1))
        self.at[row] = index
        self.predicted[row] = one.predicted
        self.confidence[row] = one.confidence
        self.score[row] = one.score
        self.logits[row] = logits[0]
        self.going_to[row] = ANSWER if isinstance(verdict, Answer) else verdict.next_index

    def result(self) -> ClassifyResult:
        """Return the answers, each from the stage where its text now stands."""
        steps = self._plan.steps
        at = self.at.tolist()
        variant = [steps[index].rules.variant for index in at]
        escalated = [index > 0 for index in at]
        abstained: list[bool] = []
        if self._plan.abstains_at is not None:
            abstained = (self.going_to == self._plan.abstains_at).tolist()
            variant = [ABSTAIN if left else name for name, left in zip(variant, abstained, strict=True)]
            escalated = [left or later for later, left in zip(escalated, abstained, strict=True)]
        return ClassifyResult(
            model=CASCADE,
            labels=self._plan.snapshot.family.labels,
            predicted=self.predicted.tolist(),
            confidence=self.confidence.tolist(),
            variant=variant,
            escalated=escalated,
            degraded=self.degraded.tolist(),
            logits=self.logits,
            temperatures=[steps[index].temperature for index in at],
            policy_version=self._plan.snapshot.policy.version,
            by_load=() if self.by_load is None else self.by_load.tolist(),
            certified=self._plan.certified,
            abstained=abstained,
            gear=self._plan.gear,
        )
