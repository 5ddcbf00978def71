"""The sample: the arrays that searching and testing work on, and the fitted scores of the variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from contract.costs import Cost
from contract.errors import PolicyError
from contract.predictions import UNLABELLED, Predictions
from router.decide.scores import (
    NEEDS_LOGITS,
    BoolArray,
    FloatArray,
    IntArray,
    agreement,
    basic_score,
    scorer_from_parameters,
)
from router.tune.calibrate import fit_deferral, fit_per_class, fit_temperature


@dataclass(frozen=True, eq=False)
class Sample:
    """N rows seen by V variants, cheapest first.

    Attributes:
        names: the variants by cost.
        usd: [V] usd_per_1k.
        label: [N] class index, below 0 unlabelled.
        answers: [V, N] class index; `classes` where outside the label set.
        right: [V, N] whether the variant is right.
        confidence: [V, N] calibrated maximum probability where there are logits, else as given.
        basic: [V, N] the score that needs no other variant.
        slices: name to [N].
    """

    names: tuple[str, ...]
    usd: FloatArray
    classes: int
    label: IntArray
    answers: IntArray
    right: BoolArray
    confidence: FloatArray
    basic: FloatArray
    slices: Mapping[str, BoolArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: IntArray | BoolArray) -> Sample:
        """Return the rows of a mask or index array."""
        return replace(
            self,
            label=self.label[rows],
            answers=self.answers[:, rows],
            right=self.right[:, rows],
            confidence=self.confidence[:, rows],
            basic=self.basic[:, rows],
            slices={name: mask[rows] for name, mask in self.slices.items()},
        )


@dataclass(frozen=True)
class ScoreModel:
    """A score with what was fitted for it on the tune part.

    That is temperatures by variant and parameters by (variant, next).
    """

    name: str
    labels: tuple[str, ...]
    temperatures: Mapping[str, float]
    parameters: Mapping[tuple[str, str | None], Mapping[str, Any]]

    def chain_scores(self, sample: Sample, chain: Sequence[int]) -> list[FloatArray]:
        """Return the score [N] of every stage but the last, were all rows to reach it."""
        found = []
        for place, variant in enumerate(chain[:-1]):
            confidence = sample.confidence[variant]
            if self.name == "agreement":
                earlier = sample.answers[list(chain[:place])].T
                found.append(agreement(confidence, sample.answers[variant], earlier))
            elif self.name == "deferral":
                parameters = self.stage_parameters(sample.names[variant], sample.names[chain[place + 1]])
                scorer = scorer_from_parameters("deferral", parameters or {}, self.labels)
                found.append(scorer(confidence, sample.answers[variant]))
            else:
                found.append(sample.basic[variant])
        return found

    def stage_parameters(self, variant: str, following: str) -> Mapping[str, Any] | None:
        """Return the parameters that a stage of this score carries in the policy, None where it has none."""
        return self.parameters.get((variant, following)) or self.parameters.get((variant, None))


def by_cost(names: Sequence[str], costs: Mapping[str, Cost], predictions: Predictions) -> tuple[str, ...]:
    """Return the variants cheapest first; of two equally dear the less accurate comes first."""
    return tuple(
        sorted(
            names, key=lambda name: (costs[name].usd_per_1k, float(predictions.correct(name).mean()), name)
        )
    )


def fit_scores(
    predictions: Predictions,
    names: Sequence[str],
    score: str,
    *,
    seed: int,
    min_count: int = 100,
    shrinkage: float = 50.0,
    reference: str | None = None,
) -> ScoreModel:
    """Fit temperatures, and the parameters of a fitted score, on the tune rows.

    Where no row has a label the answers of `reference` stand in for labels, and its own temperature is 1.

    Raises:
        PolicyError: when the score needs logits that a variant lacks, naming both.
    """
    temperatures: dict[str, float] = {}
    labelled = predictions.label >= 0
    stands_in = None if labelled.any() else reference
    if stands_in is not None:
        said = np.maximum(predictions.variants[stands_in].prediction, UNLABELLED)
        predictions, labelled = replace(predictions, label=said), said >= 0
    for name in names:
        variant = predictions.variants[name]
        if variant.logits is None:
            if score in NEEDS_LOGITS:
                raise PolicyError(
                    f"score {score!r} needs logits, and the predictions have no `{name}/logits` column",
                    hint="use --score max_probability, or leave the variant out with --variants",
                )
        elif labelled.any() and name != stands_in:
            temperatures[name] = fit_temperature(
                variant.logits[labelled], predictions.label[labelled], seed=seed
            )
        else:
            temperatures[name] = 1.0
    labels = tuple(str(label) for label in predictions.labels)
    model = ScoreModel(score, labels, temperatures, {})
    if score not in {"per_class", "deferral"}:
        return model
    if not labelled.any():
        raise PolicyError(
            f"score {score!r} is fitted on labels, and the tune rows have none",
            hint="use --score max_probability",
        )
    sample = make_sample(
        predictions.take(labelled), names, dict.fromkeys(names, 0.0), replace(model, name="max_probability")
    )
    parameters: dict[tuple[str, str | None], Mapping[str, Any]] = {}
    for index, name in enumerate(sample.names):
        if score == "per_class":
            parameters[name, None] = fit_per_class(
                sample.confidence[index],
                sample.answers[index],
                sample.right[index],
                labels,
                min_count,
                shrinkage,
            )
        else:
            for other, following in enumerate(sample.names):
                if other != index:
                    parameters[name, following] = fit_deferral(
                        sample.confidence[index],
                        sample.answers[index],
                        sample.right[index],
                        sample.right[other],
                        labels,
                        min_count,
                    )
    return replace(model, parameters=parameters)


def make_sample(
    predictions: Predictions, names: Sequence[str], usd: Mapping[str, float], model: ScoreModel
) -> Sample:
    """Return the sample of all rows of `predictions` for `names` (given cheapest first)."""
    classes = len(predictions.labels)
    n = len(predictions)
    answers = np.empty((len(names), n), dtype=np.int64)
    right = np.empty((len(names), n), dtype=bool)
    confidence = np.empty((len(names), n))
    basic = confidence if model.name not in {*NEEDS_LOGITS, "per_class"} else np.empty((len(names), n))
    for index, name in enumerate(names):
        variant = predictions.variants[name]
        answers[index] = np.where(variant.prediction < 0, classes, variant.prediction)
        right[index] = predictions.correct(name)
        if variant.logits is None:
            confidence[index] = variant.confidence
        else:
            confidence[index] = basic_score("max_probability", variant.logits, model.temperatures[name])
        if model.name in NEEDS_LOGITS and variant.logits is not None:
            basic[index] = basic_score(model.name, variant.logits, model.temperatures[name])
        elif model.name == "per_class":
            scorer = scorer_from_parameters("per_class", model.parameters[name, None], model.labels)
            basic[index] = scorer(confidence[index], answers[index])
    return Sample(
        names=tuple(names),
        usd=np.array([usd[name] for name in names]),
        classes=classes,
        label=predictions.label,
        answers=answers,
        right=right,
        confidence=confidence,
        basic=basic,
        slices=dict(predictions.slices),
    )
