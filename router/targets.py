"""Targets: what an operator asks of a policy, and how each becomes a row-by-row loss with a p-value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from contract.errors import InputError, PredictionsError
from contract.predictions import Cost, Predictions
from router.board import Board
from router.pvalues import betting_needed_n, betting_p_value, binomial_p_value, normal_p_value
from router.scores import BoolArray, FloatArray, IntArray

Objective = Literal["cheapest", "most_accurate"]
Method = Literal["betting", "binomial", "disagreement"]
BUDGETS = ("max_usd_per_1k", "max_latency_ms", "max_energy_wh_per_1k", "max_escalation_rate")


@dataclass(frozen=True)
class Targets:
    """What a policy must keep, all optional and all at once; drops and rates are fractions against the
    reference.

    Budgets are means over requests. `objective` ranks the policies that keep them all: by usd_per_1k or by
    accuracy.
    """

    max_accuracy_drop: float | None = None
    min_accuracy: float | None = None
    max_f1_drop: float | None = None
    max_recall_drop: Mapping[str, float] = field(default_factory=dict)
    max_slice_drop: Mapping[str, float] = field(default_factory=dict)
    max_usd_per_1k: float | None = None
    max_latency_ms: float | None = None
    max_energy_wh_per_1k: float | None = None
    max_escalation_rate: float | None = None
    objective: Objective = "cheapest"

    def budgets(self) -> dict[str, float]:
        """Return the budgets that were asked for, by name."""
        return {name: value for name in BUDGETS if (value := getattr(self, name)) is not None}

    @property
    def has_quality(self) -> bool:
        """Whether any target speaks of answers rather than of cost."""
        scalars = (self.max_accuracy_drop, self.min_accuracy, self.max_f1_drop)
        return any(value is not None for value in scalars) or bool(
            self.max_recall_drop or self.max_slice_drop
        )


@dataclass(frozen=True)
class Constraint:
    """One quality target: H0 says that the mean loss over the rows concerned is at least epsilon.

    Attributes:
        metric: its name in the certificate.
        kind: accuracy_drop, error, f1_drop, harm or disagreement.
        low: smallest loss of a row; the largest is 1.
        label, slice_: the rows it concerns (all where None).
    """

    metric: str
    kind: Literal["accuracy_drop", "error", "f1_drop", "harm", "disagreement"]
    epsilon: float
    reference: int
    label: int | None = None
    slice_: str | None = None

    @property
    def method(self) -> str:
        """The p-value used, by name."""
        if self.kind == "accuracy_drop":
            return "betting"
        return "normal (asymptotic)" if self.kind == "f1_drop" else "binomial"

    def rows(self, board: Board) -> BoolArray:
        """Return the mask [N] of rows that the target concerns."""
        mask = np.ones(len(board), dtype=bool)
        if self.label is not None:
            mask &= board.label == self.label
        if self.slice_ is not None:
            mask &= board.slices[self.slice_]
        return mask

    def losses(self, board: Board) -> FloatArray:
        """Return [V, N], the loss of a row if variant v answers it (f1_drop: linearised at the reference's
        answers).
        """
        if self.kind == "disagreement":
            return np.asarray(board.answers != board.answers[self.reference], dtype=np.float64)
        if self.kind == "error":
            return np.asarray(1.0 - board.right, dtype=np.float64)
        if self.kind == "f1_drop":
            values = [
                f1_influence(board, answers, board.answers[self.reference]) for answers in board.answers
            ]
            return np.asarray(values[self.reference] - np.stack(values))
        gap = board.right[self.reference].astype(np.float64) - board.right
        return np.asarray(np.maximum(gap, 0.0) if self.kind == "harm" else gap)

    def drawn(self, board: Board, chosen: IntArray, losses: FloatArray) -> FloatArray:
        """Return the losses [n] of the rows concerned when variant chosen[i] answers row i."""
        if self.kind == "f1_drop":
            answers = board.answers[chosen, np.arange(len(board))]
            return f1_drop_values(board, answers, board.answers[self.reference])
        mask = self.rows(board)
        values: FloatArray = losses[chosen[mask], np.flatnonzero(mask)]
        return values

    def p_value(self, drawn: FloatArray, delta: float) -> float:
        """Return the p-value of H0 given the losses of the rows concerned."""
        if self.kind == "f1_drop":
            return normal_p_value(drawn, self.epsilon)
        if self.kind == "accuracy_drop":
            return betting_p_value(drawn, self.epsilon, delta)
        return binomial_p_value(int(drawn.sum()), len(drawn), self.epsilon)

    def needed_n(self, drawn: FloatArray, delta: float, n: int) -> int | None:
        """Return about how many certify rows, like the `n` that gave `drawn`, this target needs to pass."""
        low = 0.0 if self.kind in {"error", "harm", "disagreement"} else -1.0
        needed = betting_needed_n(np.clip(drawn, low, 1.0), self.epsilon, delta, low)
        return None if needed is None or len(drawn) == 0 else round(needed * n / len(drawn))


def f1_influence(board: Board, answers: IntArray, at: IntArray) -> FloatArray:
    """Return [N]: each row's part in macro-F1 if answered by `answers`, linearised where the answers are
    `at`; mean is macro-F1 there.

    F1_c = 2 T_c / (A_c + P_c); its derivative in T is 2 / S_c and in A or P is -F1_c / S_c, with S_c = A_c
    + P_c.
    """
    n, classes = len(board), board.classes
    label = np.where(board.label < 0, classes, board.label)
    hit = label == at
    true = np.bincount(label[hit], minlength=classes + 1)[:classes]
    size = (np.bincount(label, minlength=classes + 1) + np.bincount(at, minlength=classes + 1))[:classes]
    present = size > 0
    scale = np.zeros(classes + 1)
    scale[:classes][present] = n / (size[present] * present.sum())
    f1 = np.zeros(classes + 1)
    f1[:classes][present] = 2 * true[present] / size[present]
    base = float(f1[:classes][present].mean()) if present.any() else 0.0
    mine = label == answers
    part = 2 * mine * scale[label] - f1[label] * scale[label] - f1[answers] * scale[answers]
    return np.asarray(base + part)


def f1_drop_values(board: Board, answers: IntArray, reference: IntArray) -> FloatArray:
    """Return [N] values whose mean is the macro-F1 drop of `answers` and whose spread is its delta-method
    spread.
    """
    return f1_influence(board, reference, reference) - f1_influence(board, answers, answers)


def constraints_of(
    targets: Targets, predictions: Predictions, reference: int, method: Method
) -> tuple[Constraint, ...]:
    """Return the constraints of `targets`, each checked against what the data can tell.

    Raises:
        InputError: a target out of range, an unknown class or slice.
        PredictionsError: labels are needed and there are none.
    """
    found: list[Constraint] = []
    names = [str(label) for label in predictions.labels]
    if targets.max_accuracy_drop is not None:
        kind: Literal["accuracy_drop", "harm", "disagreement"] = {
            "betting": "accuracy_drop",
            "binomial": "harm",
            "disagreement": "disagreement",
        }[method]  # type: ignore[assignment]
        found.append(Constraint("accuracy_drop", kind, targets.max_accuracy_drop, reference))
    if targets.min_accuracy is not None:
        _fraction("min_accuracy", targets.min_accuracy)
        found.append(Constraint("min_accuracy", "error", 1.0 - targets.min_accuracy, reference))
    if targets.max_f1_drop is not None:
        found.append(Constraint("f1_drop", "f1_drop", targets.max_f1_drop, reference))
    for label, value in targets.max_recall_drop.items():
        if label not in names:
            raise InputError(
                f"max_recall_drop names the class {label!r}, which is not a label",
                hint=f"labels: {', '.join(names[:20])}",
            )
        found.append(
            Constraint(f"recall_drop[{label}]", "accuracy_drop", value, reference, label=names.index(label))
        )
    for name, value in targets.max_slice_drop.items():
        if name not in predictions.slices:
            known = ", ".join(predictions.slices) or "none"
            raise InputError(
                f"max_slice_drop names the slice {name!r}, which the data lack", hint=f"slices: {known}"
            )
        found.append(Constraint(f"slice_drop[{name}]", "accuracy_drop", value, reference, slice_=name))
    for constraint in found:
        _fraction(constraint.metric, constraint.epsilon)
        if constraint.kind != "disagreement" and not (predictions.label >= 0).any():
            raise PredictionsError(
                f"the target {constraint.metric} needs labels, and no row has one",
                hint="without labels only --max-accuracy-drop works, by disagreement with the reference",
            )
    return tuple(found)


def check_budgets(targets: Targets, names: tuple[str, ...], costs: Mapping[str, Cost]) -> None:
    """Raise InputError for a budget out of range and PredictionsError for a cost that a budget needs and a
    variant lacks.
    """
    for budget, value in targets.budgets().items():
        if not value >= 0 or (budget == "max_escalation_rate" and value > 1):
            raise InputError(
                f"{budget} is {value:g}; it must be {'between 0 and 1' if 'rate' in budget else '0 or more'}"
            )
        if budget == "max_escalation_rate":
            continue
        key = budget.removeprefix("max_")
        for name in names:
            if getattr(costs[name], key) is None:
                raise PredictionsError(
                    f"the target {budget} needs {key} of {name!r}, and the costs lack it", where="costs"
                )


def _fraction(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise InputError(
            f"the target {name} is {value:g}; it must lie between 0 and 1, as a fraction (0.01 is one point)"
        )
