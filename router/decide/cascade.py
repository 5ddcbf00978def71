"""The cascade decision: a policy compiled for one label set, and the choice that every request meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import PolicyError
from contract.policy import Policy, Stage
from contract.predictions import VariantPredictions
from contract.probabilities import softmax
from router.decide.scores import (
    FITTED_SCORES,
    NEEDS_LOGITS,
    DeferralRule,
    FloatArray,
    IntArray,
    PerClassCurve,
    Scored,
    ScoredOne,
    agreement,
    entropy,
    margin,
    max_probability,
    score_one,
    scorer_from_parameters,
)

ANSWER = -1
_CONFIDENCE_ITSELF = ("max_probability", "agreement")
"""Scores that are the confidence where no earlier stage voted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The stage's answer is accepted."""


@dataclass(frozen=True, slots=True)
class Escalate:
    """The request goes on to the stage of this index."""

    next_index: int


@dataclass(frozen=True, slots=True, eq=False)
class CompiledStage:
    """One stage with its rules as arrays over the classes.

    The last entry of each serves answers outside the label set. thresholds [C + 1]: accept when the score is
    at least that; -inf at the last stage. nexts [C + 1]: index of the stage to escalate to.
    """

    index: int
    variant: str
    score: str
    temperature: float | None
    thresholds: FloatArray
    nexts: IntArray
    scorer: PerClassCurve | DeferralRule | None = None

    def score_logits(self, logits: NDArray[np.floating[Any]], earlier: IntArray | None = None) -> Scored:
        """Score a batch of logits [N, C].

        `earlier` [N, k] are classes that previous stages predicted; only the agreement score reads them.
        """
        probabilities = softmax(logits, 1.0 if self.temperature is None else self.temperature)
        predicted = probabilities.argmax(axis=1)
        return self._finish(predicted, max_probability(probabilities), probabilities, earlier)

    def score_one(self, logits: NDArray[np.floating[Any]]) -> ScoredOne:
        """Score the logits [C] of one text, bit for bit as in a batch; no stage voted before."""
        if self.score not in _CONFIDENCE_ITSELF:
            scored = self.score_logits(logits[None, :])
            return ScoredOne(int(scored.predicted[0]), float(scored.confidence[0]), float(scored.score[0]))
        return score_one(logits, 1.0 if self.temperature is None else self.temperature)

    def score_table(self, variant: VariantPredictions, earlier: IntArray | None = None) -> Scored:
        """Score rows of a predictions table, from logits where the stage needs them, else as given.

        A stage that has a temperature needs them too.

        Raises:
            PolicyError: when the stage needs logits that the table lacks.
        """
        if variant.logits is None:
            if self.temperature is not None or self.score in NEEDS_LOGITS:
                why = f"score {self.score!r}" if self.score in NEEDS_LOGITS else "temperature"
                raise PolicyError(
                    f"stage {self.variant!r}: its {why} needs `{self.variant}/logits`, which the table lacks",
                    hint="add the logits, or tune with --score max_probability on this table",
                )
            return self._finish(variant.prediction, variant.confidence, None, earlier)
        if self.temperature is None and self.score not in NEEDS_LOGITS:
            return self._finish(variant.prediction, variant.confidence, None, earlier)
        probabilities = softmax(variant.logits, self.temperature or 1.0)
        return self._finish(variant.prediction, max_probability(probabilities), probabilities, earlier)

    def _finish(
        self,
        predicted: IntArray,
        confidence: FloatArray,
        probabilities: FloatArray | None,
        earlier: IntArray | None,
    ) -> Scored:
        if self.scorer is not None:
            score = self.scorer(confidence, predicted)
        elif self.score == "agreement":
            score = agreement(confidence, predicted, earlier)
        elif self.score == "margin" and probabilities is not None:
            score = margin(probabilities)
        elif self.score == "entropy" and probabilities is not None:
            score = entropy(probabilities)
        else:
            score = confidence
        return Scored(predicted, confidence, score)


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPolicy:
    """A policy ready to decide.

    `verdicts` and `limits` are plain lists so that a single decision allocates nothing. Where it `abstains`
    nobody is asked at the last stage.
    """

    stages: tuple[CompiledStage, ...]
    classes: int
    limits: tuple[list[float], ...]
    verdicts: tuple[list[Escalate], ...]
    abstains: bool = False
    answer: Answer = Answer()

    @property
    def last(self) -> int:
        """The index of the last stage."""
        return len(self.stages) - 1

    def decide(self, stage_index: int, predicted_class: int, score: float) -> Answer | Escalate:
        """Return what becomes of one request: accepted when score >= the threshold of its predicted class.

        A predicted class below 0 is one outside the label set. A NaN score escalates.
        """
        slot = predicted_class if 0 <= predicted_class < self.classes else self.classes
        if stage_index == len(self.stages) - 1 or score >= self.limits[stage_index][slot]:
            return self.answer
        return self.verdicts[stage_index][slot]

    def decide_batch(self, stage_index: int, predicted: IntArray, score: FloatArray) -> IntArray:
        """Return [N]: ANSWER (-1) where the stage's answer is accepted, else the index of the next stage."""
        if stage_index == self.last:
            return np.full(len(predicted), ANSWER, dtype=np.int64)
        stage = self.stages[stage_index]
        slot = np.where((predicted >= 0) & (predicted < self.classes), predicted, self.classes)
        return np.where(score >= stage.thresholds[slot], ANSWER, stage.nexts[slot])


def compile_policy(policy: Policy, labels: Sequence[object]) -> CompiledPolicy:
    """Return `policy` compiled for a label set (class index i is labels[i]; labels are compared as text).

    Raises:
        PolicyError: when a class rule names an unknown label, or a fitted score lacks its parameters.
    """
    names = [str(label) for label in labels]
    position = {name: index for index, name in enumerate(names)}
    order = {stage.variant: index for index, stage in enumerate(policy.stages)}
    compiled = tuple(
        _compile_stage(index, stage, names, position, order) for index, stage in enumerate(policy.stages)
    )
    return CompiledPolicy(
        stages=compiled,
        classes=len(names),
        limits=tuple(stage.thresholds.tolist() for stage in compiled),
        verdicts=tuple([Escalate(int(target)) for target in stage.nexts] for stage in compiled),
        abstains=policy.abstains,
    )


def _compile_stage(
    index: int, stage: Stage, names: list[str], position: dict[str, int], order: dict[str, int]
) -> CompiledStage:
    last = index == len(order) - 1
    thresholds = np.full(len(names) + 1, -np.inf if stage.threshold is None else stage.threshold)
    nexts = np.full(len(names) + 1, index if last else index + 1, dtype=np.int64)
    for label, rule in stage.per_class.items():
        if label not in position:
            raise PolicyError(
                f"stage {stage.variant!r} has a rule for class {label!r}, which is not one of the labels",
                hint="tune again on the data that are served",
            )
        thresholds[position[label]] = rule.threshold
        if rule.next is not None:
            nexts[position[label]] = order[rule.next]
    scorer = None
    if stage.score in FITTED_SCORES and not last:
        if stage.score_parameters is None:
            raise PolicyError(
                f"stage {stage.variant!r}: score {stage.score!r} lacks its score_parameters",
                hint="tune again",
            )
        scorer = scorer_from_parameters(stage.score, stage.score_parameters, names)
    return CompiledStage(index, stage.variant, stage.score, stage.temperature, thresholds, nexts, scorer)
