"""Few labels: how low a threshold they certify, how often falsely, and what other ways would have reached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy

from bench.routing.tables import ReplayTable, markdown, read
from contract.formulas import wilson_interval
from contract.predictions import UNLABELLED
from router.decide.scores import FloatArray, IntArray
from router.labels.certify import certify
from router.labels.draw import Draw, draw_rows
from router.labels.pair import Pair, make_pair
from router.tune.settings import TuneSettings
from router.tune.trinomial import trinomial_p_value

DRAWS = 200
DELTA, EPSILON = 0.1, 0.01
BETA_SHARE = 0.02
PAIR = ("resnet18", "resnet152")
RUNS = ((300, 6_000), (300, 20_000), (1_000, 20_000))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Rows drawn from the table, the labels asked for, and what these say."""

    pair: Pair
    draw: Draw
    losses: IntArray


def few_labels(data: Path) -> str:
    """Return escalation and violations with chosen labels, beside a bound of the share that differs.

    Rows are drawn from the table with replacement, so that the table is the population and its drop is known.
    """
    table = read(data, "imagenet_resnets")
    lines = []
    for budget, rows in RUNS:
        ways: dict[str, list[float]] = {"exact trinomial (`sluice label`)": [], "bounded share": []}
        asked = []
        for seed in range(DRAWS):
            found = _drawn(table, rows, budget, seed)
            best = certify(found.pair, found.draw, found.losses, EPSILON, DELTA).best
            first, second = ways.values()
            first.append(2.0 if best is None else best.threshold)
            second.append(_bounded_share(found))
            asked.append(len(found.draw))
        for name, thresholds in ways.items():
            lines.append(
                [f"{budget:,} ({np.mean(asked):.0f})", f"{rows:,}", name, *_judged(table, thresholds)]
            )
    return "\n\n".join(
        [
            "## Few labels",
            f"ResNet-18 -> ResNet-152 at 1 point, delta = 0.1, {DRAWS} draws of rows without a label, drawn "
            "with replacement and so counted on the whole table, whose drop is known; its optimum escalates "
            "0.395. Labels are asked of accepted rows that differ. The bounded share takes the share of "
            "differing answers from all rows, by a Clopper-Pearson bound at a fiftieth of delta, and "
            "tests the labels alone against the target divided by it. "
            "The quarter that says how low rows are asked for (`router.labels.pair.NET_SHARE`) was chosen "
            "among two values on this pair, and so was how rows are drawn, so the escalation flatters a "
            "little; violations do not depend on it.",
            markdown(
                [
                    "labels at most (asked)",
                    "rows without a label",
                    "how",
                    "mean escalation",
                    "standard deviation",
                    "violations (95% interval)",
                ],
                lines,
            ),
        ]
    )


def _drawn(table: ReplayTable, rows: int, budget: int, seed: int) -> _Drawn:
    chosen = np.random.default_rng(seed).integers(0, len(table.predictions), rows)
    truth = table.predictions.take(chosen)
    blank = replace(truth, label=np.full(rows, UNLABELLED), split=None)
    settings = TuneSettings(reference=PAIR[1], variants=PAIR, seed=seed)
    pair = make_pair(blank, table.costs, settings, EPSILON)
    draw = draw_rows(pair, budget, seed)
    at = pair.rows[draw.places]
    right = [truth.correct(name)[at].astype(np.int64) for name in PAIR]
    return _Drawn(pair, draw, np.asarray(right[1] - right[0]))


def _bounded_share(found: _Drawn) -> float:
    """Return the lowest threshold certified where P(differs) is bounded by all rows; 2 where none is."""
    pair, draw = found.pair, found.draw
    differing, n, beta = pair.differing(), len(pair), BETA_SHARE * DELTA
    scores = draw.scores(pair)
    best = 2.0
    for place, threshold in enumerate(pair.path[: draw.level + 1].tolist()):
        part = found.losses[scores >= threshold]
        count = int(differing[place])
        most = float(scipy.special.betaincinv(count + 1, n - count, 1.0 - beta))
        plus, minus = int((part == 1).sum()), int((part == -1).sum())
        p_value = 0.0 if most <= EPSILON else trinomial_p_value(plus, minus, len(part), EPSILON / most, DELTA)
        if p_value + beta > DELTA:
            break
        best = threshold
    return best


def _judged(table: ReplayTable, thresholds: list[float]) -> list[str]:
    predictions = table.predictions
    scores: FloatArray = predictions.variants[PAIR[0]].confidence
    lost = predictions.correct(PAIR[1]).astype(np.int64) - predictions.correct(PAIR[0])
    accepted = [scores >= threshold for threshold in thresholds]
    broken = sum(float((lost * mask).mean()) > EPSILON for mask in accepted)
    low, high = wilson_interval(broken, len(thresholds))
    escalated = [1.0 - float(mask.mean()) for mask in accepted]
    return [
        f"{np.mean(escalated):.3f}",
        f"{np.std(escalated):.3f}",
        f"{broken / len(thresholds):.1%} ({low:.1%} to {high:.1%})",
    ]
