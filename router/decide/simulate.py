"""Replay: what a policy would have done on rows whose predictions are known, row by row and in sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contract.costs import Cost
from contract.errors import PolicyError, PredictionsError
from contract.formulas import macro_f1, wilson_interval
from contract.policy import ABSTAIN, Policy
from contract.predictions import UNLABELLED, LabelValue, Predictions
from router.decide.cascade import ANSWER, CompiledPolicy, compile_policy
from router.decide.scores import BoolArray, FloatArray, IntArray

NOT_RUN = -9
COSTS = ("usd_per_1k", "latency_ms", "energy_wh_per_1k")


@dataclass(frozen=True, eq=False)
class Replay:
    """What every row met, all arrays [N].

    Attributes:
        stage: index of the stage that answered.
        answer: class index of the answer (below 0: outside the label set, or none where nobody answers).
        confidence: calibrated maximum probability of the answering stage.
        ran: [N, stages] whether a stage ran.
        abstained: whether nobody answers, and confidence is that of the last stage that looked.
    """

    stage: IntArray
    answer: IntArray
    confidence: FloatArray
    ran: BoolArray
    abstained: BoolArray

    @property
    def escalated(self) -> BoolArray:
        """[N] whether the first stage's answer was not accepted."""
        return np.asarray(self.stage > 0)


@dataclass(frozen=True, eq=False)
class Simulation:
    """A replay with its figures. `figures` has the keys of `sluice simulate --json`."""

    figures: dict[str, Any]
    rows: Replay
    labels: tuple[LabelValue, ...]
    variants: tuple[str, ...]

    def answers(self) -> list[dict[str, Any]]:
        """Return per row what the gateway would answer.

        Label (None outside the label set), confidence, variant, and whether it escalated.
        """
        return [
            {
                "label": self.labels[answer] if answer >= 0 else None,
                "confidence": confidence,
                "variant": self.variants[stage],
                "escalated": stage > 0,
            }
            for answer, confidence, stage in zip(
                self.rows.answer.tolist(),
                self.rows.confidence.tolist(),
                self.rows.stage.tolist(),
                strict=True,
            )
        ]


def replay(policy: CompiledPolicy, predictions: Predictions) -> Replay:
    """Send every row through the cascade.

    Raises:
        PolicyError: when a stage's variant is not in the table, or lacks logits that its score needs.
    """
    n, count = len(predictions), len(policy.stages)
    current = np.zeros(n, dtype=np.int64)
    stage_of = np.zeros(n, dtype=np.int64)
    answer = np.zeros(n, dtype=np.int64)
    confidence = np.zeros(n)
    ran = np.zeros((n, count), dtype=bool)
    votes = any(stage.score == "agreement" for stage in policy.stages[:-1])
    seen = np.full((n, count), NOT_RUN, dtype=np.int64) if votes else None
    for stage in policy.stages[: policy.last] if policy.abstains else policy.stages:
        if stage.variant not in predictions.variants:
            raise PolicyError(
                f"the policy names variant {stage.variant!r}, which the predictions lack",
                hint=f"they have: {', '.join(predictions.names)}",
            )
        rows = np.flatnonzero(current == stage.index)
        if len(rows) == 0:
            continue
        whole = len(rows) == n
        table = predictions.variants[stage.variant]
        variant = table if whole else table.take(rows)
        scored = stage.score_table(variant, None if seen is None else seen[rows, : stage.index])
        verdict = policy.decide_batch(stage.index, scored.predicted, scored.score)
        ran[rows, stage.index] = True
        if seen is not None:
            seen[rows, stage.index] = scored.predicted
        current[rows] = np.where(verdict == ANSWER, count, verdict)
        stays = verdict == ANSWER
        stage_of[rows[stays]] = stage.index
        answer[rows[stays]] = scored.predicted[stays]
        confidence[rows] = scored.confidence
    abstained = np.asarray((current == policy.last) & policy.abstains)
    stage_of[abstained], answer[abstained] = policy.last, UNLABELLED
    return Replay(stage_of, answer, confidence, ran, abstained)


def simulate(
    predictions: Predictions, costs: Mapping[str, Cost], policy: Policy, *, confidence: float = 0.95
) -> Simulation:
    """Replay `policy` on all rows of `predictions` and sum up.

    A figure that needs labels or an absent cost is None. Of a policy that abstains quality is counted where
    it answers, and so is the reference's. `confidence` is the level of the Wilson intervals. A class that
    only the policy's rules name is one that no row is of. Raises PolicyError or PredictionsError, which name
    what is missing.
    """
    names = tuple(stage.variant for stage in policy.stages)
    for name in names:
        if name not in costs and name != ABSTAIN:
            raise PredictionsError(f"the costs lack variant {name!r}, which the policy uses", where="costs")
    if len(predictions) == 0:
        raise PredictionsError("there are no rows to simulate")
    if policy.reference not in predictions.variants:
        raise PolicyError(
            f"the policy counts its drop against reference {policy.reference!r}, which the predictions lack",
            hint=f"they have: {', '.join(predictions.names)}",
        )
    rows = replay(compile_policy(policy, _all_labels(policy, predictions)), predictions)
    n = len(predictions)
    labelled = predictions.label != UNLABELLED
    figures: dict[str, Any] = {"n": n, "n_labelled": int(labelled.sum())}
    if policy.abstains:
        labelled &= ~rows.abstained
        figures["abstention_rate"] = float(rows.abstained.mean())
    right = (rows.answer == predictions.label) & labelled
    share = rows.ran.mean(axis=0)
    figures |= _quality(right, labelled, rows.escalated, confidence)
    figures["macro_f1"] = (
        macro_f1(predictions.label[labelled], rows.answer[labelled], len(predictions.labels))
        if labelled.any()
        else None
    )
    figures |= _against_reference(predictions, policy.reference, right, labelled)
    figures["stage_share"] = {name: float((rows.stage == index).mean()) for index, name in enumerate(names)}
    for key in COSTS:
        figures[key] = expected_cost(_prices(costs, names, key), share)
    figures["per_slice"] = {}
    for name, mask in predictions.slices.items():
        part = _quality(right[mask], labelled[mask], rows.escalated[mask], confidence)
        reference = _against_reference(predictions.take(mask), policy.reference, right[mask], labelled[mask])
        seen = mask & labelled
        used = rows.ran[mask].mean(axis=0) if mask.any() else None
        figures["per_slice"][name] = {
            "n": int(mask.sum()),
            **part,
            "macro_f1": macro_f1(predictions.label[seen], rows.answer[seen], len(predictions.labels))
            if seen.any()
            else None,
            **reference,
            **{
                key: None if used is None else expected_cost(_prices(costs, names, key), used)
                for key in COSTS
            },
        }
    figures["per_class"] = _per_class(predictions, rows, labelled)
    figures["status"] = policy.status
    figures["policy_version"] = policy.version
    figures["interval_method"] = f"Wilson, {confidence:.0%}"
    return Simulation(figures, rows, predictions.labels, names)


def _all_labels(policy: Policy, predictions: Predictions) -> tuple[LabelValue, ...]:
    """Return the table's labels, and after them those that only the policy's rules name."""
    known = {str(label) for label in predictions.labels}
    ruled = dict.fromkeys(label for stage in policy.stages for label in stage.per_class)
    return (*predictions.labels, *(label for label in ruled if label not in known))


def expected_cost(values: list[float | None], share: FloatArray) -> float | None:
    """Return the mean cost of a request; None if a stage that runs has no figure.

    It is the sum over stages of cost times the share of requests that ran it.
    """
    total = 0.0
    for value, part in zip(values, share.tolist(), strict=True):
        if part == 0.0:
            continue
        if value is None:
            return None
        total += value * part
    return total


def _quality(
    right: BoolArray, labelled: BoolArray, escalated: BoolArray, confidence: float
) -> dict[str, Any]:
    known = int(labelled.sum())
    hits = int(right.sum())
    return {
        "accuracy": hits / known if known else None,
        "accuracy_interval": list(wilson_interval(hits, known, confidence)) if known else None,
        "escalation_rate": float(escalated.mean()) if len(escalated) else None,
    }


def _against_reference(
    predictions: Predictions, reference: str, right: BoolArray, labelled: BoolArray
) -> dict[str, Any]:
    known = int(labelled.sum())
    if not known:
        return {"reference": reference, "reference_accuracy": None, "accuracy_drop": None}
    hits = int((predictions.correct(reference) & labelled).sum())
    return {
        "reference": reference,
        "reference_accuracy": hits / known,
        "accuracy_drop": (hits - int(right.sum())) / known,
    }


def _prices(costs: Mapping[str, Cost], names: Sequence[str], key: str) -> list[float | None]:
    return [getattr(costs[name], key) if name in costs else None for name in names]


def _per_class(predictions: Predictions, rows: Replay, labelled: BoolArray) -> dict[str, dict[str, Any]]:
    classes = len(predictions.labels)
    labelled = labelled & (predictions.label >= 0)
    label, answer = predictions.label[labelled], rows.answer[labelled]
    actual = np.bincount(label, minlength=classes)
    said = np.bincount(answer[answer >= 0], minlength=classes)
    true = np.bincount(label[label == answer], minlength=classes)
    return {
        str(name): {
            "recall": float(true[index] / actual[index]) if actual[index] else None,
            "precision": float(true[index] / said[index]) if said[index] else None,
            "n": int(actual[index]),
        }
        for index, name in enumerate(predictions.labels)
    }
