"""The trade-off of a policy: what other thresholds would have done, certified and naive ones marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from contract.costs import Cost
from contract.policy import Policy, Stage
from contract.predictions import Predictions
from report.format.chart import Axis, Chart, Limit, Line, Point
from report.format.figures import percent, percent_interval, points, significant
from report.format.scales import percent_form
from report.format.tables import Row, Table
from router.decide.cascade import compile_policy
from router.decide.simulate import simulate

STEPS = 48
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Choice:
    """One threshold of the first stage and what it would do on the evaluation rows."""

    threshold: float
    usd_per_1k: float
    accuracy: float
    accuracy_drop: float
    escalation_rate: float


@dataclass(frozen=True)
class Tradeoff:
    """The curve, the policy itself, and the naive choice, all on rows that no threshold was chosen on.

    Attributes:
        curve: from the highest threshold to the lowest, one threshold for all classes.
        figures: the policy's own, with the keys of `sluice simulate`.
        naive: what the tuning rows alone would have picked for the same drop; None when nothing fits.
        epsilon: the accuracy drop that both had to keep, None where none was asked for.
        rows: which rows the figures are on.
    """

    curve: tuple[Choice, ...]
    figures: Mapping[str, Any]
    naive: Choice | None
    epsilon: float | None
    rows: str


def tradeoff(policy: Policy, predictions: Predictions, costs: Mapping[str, Cost]) -> Tradeoff | None:
    """Return the trade-off of a cascade, or None for a single stage or where a figure is missing.

    The naive choice takes the cheapest threshold whose drop on the rows it is chosen on is within epsilon,
    as one would without a certificate.

    Raises:
        PolicyError: when predictions lack what the policy's scores need.
        PredictionsError: when costs lack a variant of the policy.
    """
    if not predictions.labelled or policy.reference not in predictions.variants:
        return None
    known = set() if predictions.split is None else set(predictions.split.tolist())
    chosen_on = predictions.rows_of("tune") if "tune" in known else predictions
    judged_on = predictions.rows_of("test") if "test" in known else predictions
    chosen_on, judged_on = _some(chosen_on), _some(judged_on)
    figures = simulate(judged_on, costs, policy).figures
    if len(policy.stages) < 2:
        return None
    epsilon = _accuracy_drop_asked(policy)
    thresholds = _thresholds(policy, chosen_on)
    curve = [_choice(policy, t, judged_on, costs) for t in thresholds]
    naive = None
    if epsilon is not None:
        fitting = [
            choice.threshold
            for choice in (_choice(policy, t, chosen_on, costs) for t in thresholds)
            if choice.accuracy_drop <= epsilon
        ]
        if fitting:
            naive = _choice(policy, min(fitting), judged_on, costs)
    rows = f"{len(judged_on):,} {'test ' if 'test' in known else ''}rows"
    return Tradeoff(tuple(curve), figures, naive, epsilon, rows)


def _accuracy_drop_asked(policy: Policy) -> float | None:
    """Return the certified accuracy drop, None where the certificate speaks of other figures."""
    held = policy.certificate
    if held is None:
        return None
    found = [target.epsilon for target in held.targets if target.metric == "accuracy_drop"]
    return found[0] if found else held.epsilon if held.metric == "accuracy_drop" else None


def _some(predictions: Predictions) -> Predictions:
    if len(predictions) <= MOST_ROWS:
        return predictions
    rng = np.random.default_rng(0)
    return predictions.take(np.sort(rng.choice(len(predictions), MOST_ROWS, replace=False)))


def _thresholds(policy: Policy, predictions: Predictions) -> list[float]:
    """Return thresholds at even shares of the first stage's scores, from above all of them to below."""
    stage = compile_policy(policy, predictions.labels).stages[0]
    scores = stage.score_table(predictions.variants[stage.variant]).score
    inner = np.quantile(scores, np.linspace(1, 0, STEPS))
    return [float(t) for t in dict.fromkeys([float(inner[0]) + 1e-6, *inner.tolist()])]


def _choice(policy: Policy, threshold: float, predictions: Predictions, costs: Mapping[str, Cost]) -> Choice:
    first = policy.stages[0]
    moved = Stage.model_validate({**first.model_dump(), "threshold": threshold, "per_class": {}})
    trial = policy.model_copy(update={"stages": (moved, *policy.stages[1:]), "version": ""})
    figures = simulate(predictions, costs, trial).figures
    return Choice(
        threshold,
        figures["usd_per_1k"],
        figures["accuracy"],
        figures["accuracy_drop"],
        figures["escalation_rate"],
    )


def tradeoff_chart(found: Tradeoff, policy: Policy, key: str) -> Chart:
    """Return the curve of accuracy against cost with the policy's and the naive point."""
    name = {"certified": "certified", "uncertified": "chosen"}.get(policy.status, "reference only")
    figures = found.figures
    reference = float(figures["reference_accuracy"])
    marks = [
        Point(
            1000 * figures["usd_per_1k"],
            figures["accuracy"],
            name,
            0,
            "diamond",
            y_interval=tuple(figures["accuracy_interval"]),
        )
    ]
    said = f"The {name} policy answers {percent(figures['accuracy'])} right"
    if found.naive is not None:
        marks.append(
            Point(1000 * found.naive.usd_per_1k, found.naive.accuracy, "naive", 1, "square", hollow=True)
        )
        said += f", the naive threshold {percent(found.naive.accuracy)}"
    limits = [Limit(reference, policy.reference)]
    if found.epsilon is not None:
        limits.append(Limit(reference - found.epsilon, f"{points(-found.epsilon)} points"))
    values = [choice.accuracy for choice in found.curve] + [limit.value for limit in limits]
    return Chart(
        key=key,
        title="Accuracy against cost, by threshold of the first stage",
        description=f"Curve over {len(found.curve)} thresholds on {found.rows}. {said}.",
        x=Axis("cost (USD per million)"),
        y=Axis("accuracy", form=percent_form(max(values) - min(values))),
        points=tuple(marks),
        lines=(
            Line(
                tuple((1000 * c.usd_per_1k, c.accuracy) for c in found.curve),
                colour=5,
                name="every threshold",
            ),
        ),
        limits=tuple(limits),
        width=720,
        height=380,
    )


def choices_table(found: Tradeoff, policy: Policy, key: str) -> Table:
    """Return the policy beside its neighbours on the curve and the naive choice."""
    own = policy.stages[0].threshold
    figures = found.figures
    rows = [
        Row(
            (
                {"certified": "certified policy", "uncertified": "this policy"}.get(
                    policy.status, "reference"
                ),
                significant(own, 4),
                percent(figures["escalation_rate"]),
                percent_interval(figures["accuracy"], tuple(figures["accuracy_interval"])),
                points(-figures["accuracy_drop"]),
                significant(1000 * figures["usd_per_1k"]),
            ),
            "strong",
        )
    ]
    if found.naive is not None:
        rows.append(_choice_row("naive", found.naive))
    for share in (0.05, 0.1, 0.2, 0.4, 0.8):
        near = min(found.curve, key=lambda choice: abs(choice.escalation_rate - share))
        rows.append(_choice_row(f"about {percent(share, 0)} escalated", near))
    columns = ("choice", "threshold", "escalated", "accuracy", "delta (points)", "USD/1M")
    note = f"On {found.rows}; the neighbours have one threshold for all classes."
    return Table(key, "Neighbouring choices", columns, tuple(rows), (note,))


def _choice_row(name: str, choice: Choice) -> Row:
    return Row(
        (
            name,
            significant(choice.threshold, 4),
            percent(choice.escalation_rate),
            percent(choice.accuracy),
            points(-choice.accuracy_drop),
            significant(1000 * choice.usd_per_1k),
        )
    )


def policy_parts_tables(found: Tradeoff, key: str) -> list[Table]:
    """Return the policy's own per-slice and per-class tables."""
    tables = []
    slices = found.figures["per_slice"]
    if slices:
        rows = tuple(
            Row(
                (
                    name,
                    f"{part['n']:,}",
                    percent_interval(part["accuracy"], _pair(part["accuracy_interval"])),
                    points(None if part["accuracy_drop"] is None else -part["accuracy_drop"]),
                    percent(part["escalation_rate"]),
                )
            )
            for name, part in slices.items()
        )
        columns = ("slice", "n", "accuracy", "delta (points)", "escalated")
        tables.append(Table(f"{key}-slices", "The policy per slice", columns, rows, (f"On {found.rows}.",)))
    rows = tuple(
        Row((name, f"{part['n']:,}", percent(part["recall"]), percent(part["precision"])))
        for name, part in found.figures["per_class"].items()
    )
    tables.append(
        Table(f"{key}-classes", "The policy per class", ("class", "n", "recall", "precision"), rows)
    )
    return tables


def _pair(interval: Any) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))
