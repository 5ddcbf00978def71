"""Draws of the rows that thresholds are tuned and certified on, and what the remaining rows then see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.costs import Cost
from contract.policy import Policy
from contract.predictions import Predictions, VariantPredictions
from router.decide.cascade import compile_policy
from router.decide.simulate import replay
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune

UPSTREAM = "upstream"
RIVAL = "rival"
CERTIFY_SHARE = 0.75
"""Of a draw's rows: the others choose the thresholds."""


@dataclass(frozen=True)
class Seen:
    """What the remaining rows of one draw saw; all are shares of these rows.

    Attributes:
        local: answered without the large model.
        first: answered by the first stage.
        wrong: answered without the large model, and otherwise than it would have.
    """

    local: float
    first: float
    wrong: float

    @property
    def wrong_of_local(self) -> float:
        """Share of the answers given without the large model that are other than its own."""
        return self.wrong / self.local if self.local else 0.0


@dataclass(frozen=True)
class Split:
    """Rows of one draw: to tune and certify with, and the remaining ones to count on."""

    seed: int
    certifying: NDArray[np.int64]
    remaining: NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """What is asked of a cascade: its variants, the limit, and of which answers it is a share.

    `scope`: local, of the answers that the large model does not give (which is what the rival certifies), or
    all. `score`: how sure a stage is, as `sluice tune --score` has it.
    """

    names: tuple[str, ...]
    alpha: float
    scope: str
    delta: float
    score: str = "max_probability"


def draws_of(n: int, certifying: int, draws: int, seed: int) -> list[Split]:
    """Return so many random divisions of n rows."""
    found = []
    for draw in range(draws):
        rows = np.random.default_rng([seed, draw]).permutation(n)
        found.append(Split(draw, rows[:certifying], rows[certifying:]))
    return found


def draws_from_pool(n: int, certifying: int, draws: int, seed: int) -> list[Split]:
    """Return so many samples of n rows, with replacement, and all n rows as what is counted on.

    Such rows are as independent of each other as a certificate asks, and what is counted on has no chance of
    its own: a promise is broken on it or not.
    """
    return [
        Split(draw, np.random.default_rng([seed, 1, draw]).integers(n, size=certifying), np.arange(n))
        for draw in range(draws)
    ]


def with_others(
    predictions: Predictions, predicted: Sequence[int], confidence: Sequence[float]
) -> Predictions:
    """Return the table with the rival's answers, and the large model's, which are the labels."""
    always = VariantPredictions(predictions.label.copy(), np.ones(len(predictions)))
    rival = VariantPredictions(np.asarray(predicted, dtype=np.int64), np.asarray(confidence))
    variants = {**predictions.variants, RIVAL: rival, UPSTREAM: always}
    return Predictions(predictions.labels, predictions.label, variants)


def certified(
    table: Predictions, costs: Mapping[str, Cost], asked: Asked, split: Split
) -> tuple[Policy, Seen]:
    """Tune a cascade before the large model on one draw, and see it on the remaining rows."""
    settings = TuneSettings(
        reference=UPSTREAM,
        variants=(*asked.names, UPSTREAM),
        confidence=1 - asked.delta,
        seed=split.seed,
        certify_share=CERTIFY_SHARE,
        score=asked.score,
    )
    local = asked.scope == "local"
    targets = Targets(
        max_local_disagreement=asked.alpha if local else None,
        max_disagreement=None if local else asked.alpha,
    )
    policy = tune(table.take(split.certifying), costs, targets, settings).policy
    return policy, see(policy, table.take(split.remaining))


def see(policy: Policy, rows: Predictions) -> Seen:
    """Replay a policy on rows whose labels are the large model's answers."""
    found = replay(compile_policy(policy, rows.labels), rows)
    variants = np.array([stage.variant for stage in policy.stages])
    local = variants[found.stage] != UPSTREAM
    return Seen(
        local=float(local.mean()),
        first=float((local & (found.stage == 0)).mean()),
        wrong=float((local & (found.answer != rows.label)).mean()),
    )


def seen_by_rival(table: Predictions, threshold: float | None, split: Split) -> Seen:
    """Return what the remaining rows see of the rival with the threshold that it certified; None: none."""
    rows = table.take(split.remaining)
    rival = rows.variants[RIVAL]
    local = np.zeros(len(rows), dtype=bool) if threshold is None else rival.confidence >= threshold
    share = float(local.mean())
    return Seen(share, share, float((local & (rival.prediction != rows.label)).mean()))
