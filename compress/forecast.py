"""What a family could do, before one is made: a linear model tried on answers of a model elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.learning.linear import LinearSettings, NgramRows
from contract.costs import Cost
from contract.errors import DataError
from contract.formulas import usd_per_1k_from_seconds
from contract.predictions import Predictions, VariantPredictions
from contract.prices import load_prices
from contract.probabilities import softmax
from router.decide.cascade import compile_policy
from router.decide.simulate import replay
from router.tune.calibrate import fit_temperature
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune
from runtime.ngrams.encoder import NgramEncoder, NgramOptions
from runtime.ngrams.linear import LinearRuntime

HERE, ELSEWHERE = "linear", "elsewhere"
FEWEST = 60
PARTS = (0.5, 0.1, 0.15, 0.25)
"""Of the texts: to learn from, to fit a temperature on, to choose a threshold on, to certify with."""
_EPOCHS = 6


@dataclass(frozen=True)
class Forecast:
    """What a trial promises.

    Attributes:
        certified: a threshold that lets some texts be answered here holds the disagreement.
        answered: of the n certifying texts, those that the linear model would answer.
        n: certifying texts.
        disagreement: how often it says something else on these, where it answers.
        usd_per_1k: processor time of the linear model for 1,000 texts, at the price of a core.
        needed_n: texts to certify with that would be about enough; None where it is certified or never is.
    """

    certified: bool
    answered: int
    n: int
    disagreement: float
    usd_per_1k: float
    needed_n: int | None


def forecast(
    texts: Sequence[str],
    answers: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    labels: Sequence[str],
    *,
    max_disagreement: float,
    confidence: float,
    usd_per_1k: float,
    seed: int = 0,
) -> Forecast:
    """Train a linear model on half of the texts, and certify on a quarter of them what it may answer.

    It takes seconds, and is a lower bound of sorts: a family has students besides, and learns from more.

    Args:
        texts: [N], distinct.
        answers: [N] class indices of the model elsewhere.
        probabilities: [N, C] of these; rows of NaN where they are not known.
        labels: [C].
        max_disagreement: share of all texts that may be answered otherwise.
        confidence: of the certificate.
        usd_per_1k: price of the model elsewhere; above 0, else nothing is worth answering here.
        seed: of the parts and the training.

    Raises:
        DataError: too few texts.
    """
    n = len(texts)
    if n < FEWEST:
        raise DataError(f"{n} texts are too few to try anything on; {FEWEST} at least")
    order = np.random.default_rng(seed).permutation(n)
    cuts = np.cumsum([round(share * n) for share in PARTS[:-1]])
    learn, fit, choose, certify = np.split(order, cuts)
    options = NgramOptions()
    rows = NgramRows.of([texts[i] for i in learn], options, min_documents=2)
    soft = np.log(np.maximum(probabilities[learn], 1e-9)).astype(np.float32)
    model = rows.train(
        answers[learn],
        len(labels),
        settings=LinearSettings(soft_weight=0.9, epochs=_EPOCHS),
        seed=seed,
        teacher_logits=soft,
    )
    held = np.concatenate([fit, choose, certify])
    began = time.perf_counter()
    logits = LinearRuntime(model).logits(NgramEncoder(options).encode([texts[i] for i in held]))
    seconds_per_1k = 1000 * (time.perf_counter() - began) / len(held)
    usd_here = usd_per_1k_from_seconds(seconds_per_1k, load_prices().usd_per_core_hour)
    temperature = fit_temperature(logits[: len(fit)], answers[fit])
    table = _table(logits[len(fit) :] / temperature, answers[held[len(fit) :]], labels, len(choose))
    result = tune(
        table,
        {HERE: Cost(usd_per_1k=usd_here), ELSEWHERE: Cost(usd_per_1k=usd_per_1k)},
        Targets(max_accuracy_drop=max_disagreement),
        # The exact test would certify a handful of answers, right or wrong: no reason to make a family.
        TuneSettings(reference=ELSEWHERE, confidence=confidence, seed=seed, method="betting"),
    )
    tested = table.rows_of("certify")
    policy = result.policy
    met = replay(compile_policy(policy, tuple(labels)), tested)
    here = np.array([policy.stages[stage].variant == HERE for stage in met.stage])
    if policy.status != "certified" or not here.any():
        return Forecast(False, 0, len(tested), 0.0, usd_here, policy.needed_n)
    wrong = int((met.answer != tested.label)[here].sum())
    return Forecast(True, int(here.sum()), len(tested), wrong / int(here.sum()), usd_here, None)


def _table(
    logits: NDArray[np.float32], answers: NDArray[np.int64], labels: Sequence[str], choose: int
) -> Predictions:
    """Return both on the rows that choose and certify; the model elsewhere is always right."""
    shares = softmax(logits)
    here = VariantPredictions(logits.argmax(1).astype(np.int64), shares.max(1), logits.astype(np.float32))
    sure = np.full(logits.shape, -20.0, dtype=np.float32)
    sure[np.arange(len(answers)), answers] = 0.0
    elsewhere = VariantPredictions(answers, np.ones(len(answers)), sure)
    split = np.array(["tune"] * choose + ["certify"] * (len(answers) - choose))
    return Predictions(
        labels=tuple(labels), label=answers, variants={HERE: here, ELSEWHERE: elsewhere}, split=split
    )
