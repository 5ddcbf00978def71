"""Targets: what an operator asks of a policy, and how each becomes a row-by-row loss with a p-value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from contract.costs import Cost
from contract.errors import InputError, PredictionsError
from contract.predictions import Predictions
from router.decide.scores import BoolArray, FloatArray, IntArray
from router.tune.macro_f1 import F1Counts, f1_counts, f1_influence, f1_needed_n, f1_p_value
from router.tune.pvalues import betting_needed_n, betting_p_value, binomial_p_value
from router.tune.sample import Sample
from router.tune.trinomial import trinomial_needed_n, trinomial_p_value

Objective = Literal["cheapest", "most_accurate"]
Method = Literal["trinomial", "betting", "binomial", "disagreement"]
Kind = Literal[
    "accuracy_drop", "error", "f1_drop", "harm", "disagreement", "answered_error", "local_disagreement"
]
METHODS: dict[Kind, str] = {
    "accuracy_drop": "exact trinomial",
    "error": "exact binomial",
    "f1_drop": "betting within exact bounds on macro-F1",
    "harm": "exact binomial on harm",
    "disagreement": "exact binomial on disagreement",
    "answered_error": "exact binomial on errors of local answers",
    "local_disagreement": "exact binomial on disagreement of local answers",
}
LOCAL = frozenset({"answered_error", "local_disagreement"})
"""Kinds that look at local answers alone: those that the reference does not give."""
NEED_NO_LABELS = frozenset({"disagreement", "local_disagreement"})
BUDGETS = ("max_usd_per_1k", "max_latency_ms", "max_energy_wh_per_1k", "max_escalation_rate")


@dataclass(frozen=True)
class Targets:
    """What a policy must keep, all optional and all at once.

    Drops and rates are fractions against the reference; disagreement is the share of answers that are not
    the reference's, and needs no labels; local disagreement is the same share of the answers that the
    reference did not give, and answered error the share of these that is wrong (other than the reference's
    where no row has a label). Budgets are means over requests. `objective` ranks the policies that keep them
    all: by usd_per_1k or by accuracy.
    """

    max_accuracy_drop: float | None = None
    max_disagreement: float | None = None
    min_accuracy: float | None = None
    max_f1_drop: float | None = None
    max_answered_error: float | None = None
    max_local_disagreement: float | None = None
    max_recall_drop: Mapping[str, float] = field(default_factory=dict)
    max_slice_drop: Mapping[str, float] = field(default_factory=dict)
    max_usd_per_1k: float | None = None
    max_latency_ms: float | None = None
    max_energy_wh_per_1k: float | None = None
    max_escalation_rate: float | None = None
    objective: Objective = "cheapest"

    @property
    def needs_labels(self) -> bool:
        """Whether any of it is about labels; else rows without one count too."""
        against = self.max_disagreement, self.max_local_disagreement, self.max_accuracy_drop
        known = any(value is not None for value in against)
        others = self.min_accuracy, self.max_f1_drop, *self.max_recall_drop, *self.max_slice_drop
        bounded = self.max_accuracy_drop, self.max_answered_error
        asked = any(value is not None for value in (*bounded, *others))
        return asked or not known or self.objective == "most_accurate"

    def budgets(self) -> dict[str, float]:
        """Return the budgets that were asked for, by name."""
        return {name: value for name in BUDGETS if (value := getattr(self, name)) is not None}

    @property
    def has_quality(self) -> bool:
        """Whether any target speaks of answers rather than of cost."""
        scalars = (
            self.max_accuracy_drop, self.max_disagreement, self.max_answered_error,
            self.max_local_disagreement, self.min_accuracy, self.max_f1_drop,
        )  # fmt: skip
        return any(value is not None for value in scalars) or bool(
            self.max_recall_drop or self.max_slice_drop
        )


@dataclass(frozen=True)
class Constraint:
    """One quality target: H0 says that the mean loss over the rows concerned is at least `bound`.

    Attributes:
        metric: its name in the certificate.
        kind: how its losses are made and tested.
        label, slice_: the rows it concerns (all where None).
        classes: those that macro-F1 is the mean over.
        bets: whether an accuracy drop is tested by betting in place of the exact trinomial test.
    """

    metric: str
    kind: Kind
    epsilon: float
    reference: int
    label: int | None = None
    slice_: str | None = None
    classes: tuple[int, ...] = ()
    bets: bool = False

    @property
    def bound(self) -> float:
        """What the mean loss must stay below: epsilon, or 0 where the losses have it taken off already."""
        return 0.0 if self.kind in LOCAL else self.epsilon

    @property
    def method(self) -> str:
        """The p-value used, by name."""
        return "betting" if self.bets else METHODS[self.kind]

    @property
    def asked(self) -> float:
        """The figure that was asked for: the accuracy itself for min_accuracy, else epsilon."""
        return round(1.0 - self.epsilon, 12) if self.kind == "error" else self.epsilon

    @property
    def in_words(self) -> str:
        """What is promised, as "recall_drop[a] under 0.01"."""
        if self.kind == "error":
            return f"accuracy over {self.asked:.4g}"
        return f"{self.metric} under {self.epsilon:.4g}"

    def rows(self, sample: Sample) -> BoolArray:
        """Return the mask [N] of rows that the target concerns.

        Without a label only disagreement can be told.
        """
        mask = np.ones(len(sample), dtype=bool) if self.kind in NEED_NO_LABELS else sample.label >= 0
        if self.label is not None:
            mask = mask & (sample.label == self.label)
        if self.slice_ is not None:
            mask = mask & sample.slices[self.slice_]
        return np.asarray(mask)

    def losses(self, sample: Sample) -> FloatArray:
        """Return [V, N], the loss of a row if variant v answers it.

        f1_drop is linearised at the reference's answers. On local answers it is what is wrong (or differs)
        less epsilon, and 0 for the reference: its mean is below 0 where a smaller share than epsilon of the
        other variants' answers is wrong.
        """
        if self.kind == "disagreement":
            return np.asarray(sample.answers != sample.answers[self.reference], dtype=np.float64)
        if self.kind in LOCAL:
            against = sample.answers[self.reference] if self.kind == "local_disagreement" else sample.label
            wrong = np.asarray(sample.answers != against, dtype=np.float64) - self.epsilon
            wrong[self.reference] = 0.0
            return wrong
        if self.kind == "error":
            return np.asarray(1.0 - sample.right, dtype=np.float64)
        if self.kind == "f1_drop":
            known = sample.label >= 0
            part = sample.take(known)
            at = part.answers[self.reference]
            values = np.stack([f1_influence(part, answers, at) for answers in part.answers])
            found = np.zeros(sample.answers.shape)
            found[:, known] = values[self.reference] - values
            return found
        gap = sample.right[self.reference].astype(np.float64) - sample.right
        return np.asarray(np.maximum(gap, 0.0) if self.kind == "harm" else gap)

    def drawn(self, sample: Sample, chosen: IntArray, losses: FloatArray) -> FloatArray:
        """Return the losses [n] of the rows concerned when variant chosen[i] answers row i."""
        rows = np.flatnonzero(self.rows(sample))
        values: FloatArray = losses[chosen[rows], rows]
        return values

    def p_value(self, sample: Sample, chosen: IntArray, losses: FloatArray, delta: float) -> float:
        """Return the p-value of H0 when variant chosen[i] answers row i of `sample` at these losses."""
        if self.kind == "f1_drop":
            return f1_p_value(self._f1_counts(sample, chosen), self.epsilon, delta)
        drawn = self.drawn(sample, chosen, losses)
        if self.kind in LOCAL:
            local = drawn[chosen[self.rows(sample)] != self.reference]
            return binomial_p_value(int((local > 0).sum()), len(local), self.epsilon)
        if self.kind == "accuracy_drop" and self.bets:
            return betting_p_value(drawn, self.epsilon, delta)
        if self.kind == "accuracy_drop":
            plus, minus = int((drawn > 0).sum()), int((drawn < 0).sum())
            return trinomial_p_value(plus, minus, len(drawn), self.epsilon, delta)
        return binomial_p_value(int(drawn.sum()), len(drawn), self.epsilon)

    def needed_n(self, sample: Sample, chosen: IntArray, losses: FloatArray, delta: float) -> int | None:
        """Return about how many rows to certify with, like those of `sample`, this target needs to pass."""
        if self.kind == "f1_drop":
            counts = self._f1_counts(sample, chosen)
            needed, n = f1_needed_n(counts, self.epsilon, delta), counts.n
        else:
            drawn = self.drawn(sample, chosen, losses)
            low, high = -1.0 if self.kind == "accuracy_drop" else 0.0, 1.0
            if self.kind in LOCAL:
                low, high = -self.epsilon, 1.0 - self.epsilon
            n = len(drawn)
            if self.kind == "accuracy_drop" and not self.bets:
                needed = trinomial_needed_n(drawn, self.epsilon, delta)
            else:
                needed = betting_needed_n(drawn, self.bound, delta, low, high)
        return None if needed is None or n == 0 else round(needed * len(sample) / n)

    def _f1_counts(self, sample: Sample, chosen: IntArray) -> F1Counts:
        rows = np.flatnonzero(self.rows(sample))
        reference = sample.answers[self.reference][rows]
        return f1_counts(
            sample.label[rows], reference, sample.answers[chosen[rows], rows], sample.classes, self.classes
        )


def constraints_of(
    targets: Targets,
    predictions: Predictions,
    reference: int,
    method: Method,
    classes: tuple[int, ...] = (),
) -> tuple[Constraint, ...]:
    """Return the constraints of `targets`, each checked against what the data can tell.

    `classes` are the labels that occur in the rows to tune and certify with: macro-F1 is their mean.

    Raises:
        InputError: a target out of range, an unknown class or slice.
        PredictionsError: labels are needed and there are none.
    """
    found: list[Constraint] = []
    names = [str(label) for label in predictions.labels]
    bets = method == "betting"
    if targets.max_accuracy_drop is not None:
        kinds: dict[Method, Kind] = {
            "trinomial": "accuracy_drop",
            "betting": "accuracy_drop",
            "binomial": "harm",
            "disagreement": "disagreement",
        }
        kind = kinds[method]
        unlabelled = not (predictions.label >= 0).any()
        metric = "disagreement" if unlabelled else "accuracy_drop"
        found.append(Constraint(metric, kind, targets.max_accuracy_drop, reference, bets=bets))
    if targets.max_disagreement is not None:
        found.append(Constraint("disagreement", "disagreement", targets.max_disagreement, reference))
    if targets.min_accuracy is not None:
        if not 0.0 < targets.min_accuracy < 1.0:
            raise InputError(
                f"the target min_accuracy is {targets.min_accuracy:g}; it must be above 0 and under 1"
            )
        found.append(Constraint("min_accuracy", "error", 1.0 - targets.min_accuracy, reference))
    if targets.max_f1_drop is not None:
        found.append(Constraint("f1_drop", "f1_drop", targets.max_f1_drop, reference, classes=classes))
    if targets.max_answered_error is not None:
        blind = not (predictions.label >= 0).any()
        local: Kind = "local_disagreement" if blind else "answered_error"
        found.append(Constraint("answered_error", local, targets.max_answered_error, reference))
    if targets.max_local_disagreement is not None:
        asked = targets.max_local_disagreement
        found.append(Constraint("local_disagreement", "local_disagreement", asked, reference))
    for label, value in targets.max_recall_drop.items():
        if label not in names:
            raise InputError(
                f"max_recall_drop names the class {label!r}, which is not a label",
                hint=f"labels: {', '.join(names[:20])}",
            )
        metric, index = f"recall_drop[{label}]", names.index(label)
        found.append(Constraint(metric, "accuracy_drop", value, reference, label=index, bets=bets))
    for name, value in targets.max_slice_drop.items():
        if name not in predictions.slices:
            known = ", ".join(predictions.slices) or "none"
            raise InputError(
                f"max_slice_drop names the slice {name!r}, which the data lack", hint=f"slices: {known}"
            )
        metric = f"slice_drop[{name}]"
        found.append(Constraint(metric, "accuracy_drop", value, reference, slice_=name, bets=bets))
    for constraint in found:
        _fraction(constraint.metric, constraint.epsilon)
        if constraint.kind not in NEED_NO_LABELS and not (predictions.label >= 0).any():
            raise PredictionsError(
                f"the target {constraint.metric} needs labels, and no row has one",
                hint="without labels only --max-disagreement and --max-local-disagreement work, and "
                "--max-accuracy-drop and --max-answered-error, which they bound",
            )
    return tuple(found)


def check_budgets(targets: Targets, names: tuple[str, ...], costs: Mapping[str, Cost]) -> None:
    """Raise InputError for a budget out of range.

    Raises PredictionsError for a cost that a budget needs and a variant lacks.
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
