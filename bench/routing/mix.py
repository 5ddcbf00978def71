"""Out-of-scope queries that come ten times as often as when certified, without cells and with them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.decisions.data import HELD_OUT, OUT_OF_SCOPE, prepare, read
from bench.routing.tables import markdown
from compress.learning.deep_table import DeepTableSettings, train_deep_table
from compress.learning.linear import LinearSettings, NgramRows
from contract.costs import Cost
from contract.formulas import wilson_interval
from contract.policy import Policy
from contract.predictions import Predictions, VariantPredictions
from contract.probabilities import softmax
from router.decide.cascade import compile_policy
from router.decide.scores import BoolArray, FloatArray
from router.decide.simulate import replay
from router.mix.shares import Growing
from router.mix.tune import tune_mix
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune
from runtime.ngrams.deep_table import DeepTableRuntime
from runtime.ngrams.encoder import BUCKETS, NgramEncoder, NgramOptions
from runtime.ngrams.linear import LinearRuntime

DRAWS, ROWS = 100, 4_000
CERTIFIED, SERVED = 0.02, 0.20
UPSTREAM = "upstream"
COSTS = {"linear": Cost(0.001), "deep": Cost(0.0012), UPSTREAM: Cost(0.03)}
EPOCHS = {"linear": 12, "deep": 12}

Way = Callable[[Predictions, str, float, int], Policy]


@dataclass(frozen=True)
class Seen:
    """What a policy does where SERVED of the texts are out of scope.

    answered: by the cheap stage; wrong: of all texts, answered by it and wrong.
    """

    answered: float
    wrong: float


def moving_mix(data: Path, workers: int = 2) -> str:
    """Return the section: trains two models on CLINC150, certifies on every draw, and counts."""
    folder = data if (data / "train.csv").is_file() else data / "clinc150"
    table, novel = answers_of(folder)
    parts = []
    with ProcessPoolExecutor(workers) as pool:
        for epsilon, ways in ((0.02, OF_ALL), (0.05, OF_ALL), (0.05, OF_ANSWERED)):
            lines = []
            for model in ("linear", "deep"):
                usual = 0.0
                for name, way in ways.items():
                    found = list(pool.map(partial(one_draw, table, model, epsilon, way), range(DRAWS)))
                    usual = usual or float(np.mean([seen.answered for seen in found]))
                    lines.append([model, name, *_counted(found, epsilon, usual, ways is OF_ANSWERED)])
            scope = "of what is answered" if ways is OF_ANSWERED else "of all answers"
            parts += [f"At most {epsilon:.0%} wrong {scope}:", markdown(list(HEAD), lines)]
    return "\n\n".join(
        ["## A mix that moves (CLINC150, out-of-scope queries)", _introduction(table), *parts, novel]
    )


HEAD = (
    "model",
    "how",
    "violations (95% interval)",
    "wrong, mean",
    "answered here, mean",
    "of the plain saving",
)


def _counted(found: list[Seen], epsilon: float, usual: float, answered: bool) -> list[str]:
    wrong = [one.wrong / max(one.answered, 1e-9) if answered else one.wrong for one in found]
    broken = sum(value > epsilon for value in wrong)
    low, high = wilson_interval(broken, len(found))
    share = float(np.mean([one.answered for one in found]))
    return [
        f"{broken / len(found):.0%} ({low:.0%} to {high:.0%})",
        f"{np.mean(wrong):.2%}",
        f"{share:.1%}",
        f"{share / usual:.0%}",
    ]


def _introduction(table: Predictions) -> str:
    strange = int((table.label == table.labels.index(OUT_OF_SCOPE)).sum())
    return (
        f"{DRAWS} draws of {ROWS:,} rows, {ROWS * CERTIFIED:.0f} of them ({CERTIFIED:.0%}) out-of-scope "
        f"queries, from {len(table):,} held-out ones ({strange:,}); delta = 0.1. The remaining rows are "
        f"weighed so that {SERVED:.0%} are out of scope. The reference is the labels, like a large model "
        "that is always right, so a drop is a wrong answer of the cheap stage. Out of scope is a class of "
        "its own with 100 training texts. Plain is `sluice tune --max-accuracy-drop`; the rival's promise is "
        "Learn-then-Test on disagreement among what is answered (`--max-local-disagreement`); neither has "
        "cells. Saving is the share that the cheap stage answers of the traffic served."
    )


def answers_of(folder: Path) -> tuple[Predictions, str]:
    """Return what both models say of the held-out texts, and a sentence on what unseen n-grams add."""
    with tempfile.TemporaryDirectory() as scratch:
        prepare(folder, Path(scratch))
        train_texts, train_labels = read(Path(scratch) / "train.csv")
        held = [read(Path(scratch) / f"{name}.csv") for name in HELD_OUT]
    texts = [text for part, _ in held for text in part]
    classes = tuple(sorted(set(train_labels)))
    place = {label: index for index, label in enumerate(classes)}
    label = np.array([place[name] for _, part in held for name in part], dtype=np.int64)
    targets = np.array([place[name] for name in train_labels], dtype=np.int64)
    options = NgramOptions()
    rows = NgramRows.of(train_texts, options, min_documents=LinearSettings.min_documents)
    linear = rows.train(
        targets, len(classes), settings=LinearSettings(EPOCHS["linear"], soft_weight=0.0), seed=0
    )
    deep = train_deep_table(
        rows, targets, len(classes), settings=DeepTableSettings(EPOCHS["deep"], soft_weight=0.0), seed=0
    )
    encoded = NgramEncoder(options).encode(texts)
    variants = {UPSTREAM: VariantPredictions(label.copy(), np.ones(len(label)))}
    for name, runtime in (("linear", LinearRuntime(linear)), ("deep", DeepTableRuntime(deep))):
        probabilities = softmax(runtime.logits(encoded), 1.0)
        variants[name] = VariantPredictions(probabilities.argmax(axis=1), probabilities.max(axis=1))
    unseen = np.array([1 - np.isin(grams, rows.buckets).mean() for grams in encoded.arrays[BUCKETS]])
    table = Predictions(classes, label, variants)
    return table, novelty(table, unseen)


def novelty(table: Predictions, unseen: FloatArray) -> str:
    """Return what escalating texts with many unseen n-grams adds to the score, in hindsight."""
    strange = table.label == table.labels.index(OUT_OF_SCOPE)
    weight = np.where(strange, SERVED / strange.sum(), (1 - SERVED) / (~strange).sum())
    said = []
    for model in ("linear", "deep"):
        score, wrong = table.variants[model].confidence, ~table.correct(model)
        for epsilon in (0.01, 0.02, 0.05):
            plain = _best(score, wrong, weight, epsilon)
            told = max(
                _best(np.where(unseen > most, -1.0, score), wrong, weight, epsilon)
                for most in (0.1, 0.15, 0.2, 0.25, 0.3)
            )
            said.append(f"{model} at {epsilon:.0%}: {plain:.1%} by score alone, {told:.1%} with it")
    return (
        "Novel texts as a cell of their own: escalating also what has more than a share of n-grams that no "
        "training text has (the best of 0.1 to 0.3, in hindsight on these very rows) answers at most this "
        f"much more. {'; '.join(said)}."
    )


def _best(score: FloatArray, wrong: BoolArray, weight: FloatArray, epsilon: float) -> float:
    order = np.argsort(-score, kind="stable")
    order = order[score[order] >= 0]
    lost = np.cumsum((wrong * weight)[order])
    count = int(np.searchsorted(lost, epsilon, side="right"))
    return float(weight[order][:count].sum())


def one_draw(table: Predictions, model: str, epsilon: float, way: Way, draw: int) -> Seen:
    """Certify on one draw, and count on the rows that it left."""
    rng = np.random.default_rng(draw)
    strange = table.label == table.labels.index(OUT_OF_SCOPE)
    count = round(ROWS * CERTIFIED)
    known, other = rng.permutation(np.flatnonzero(~strange)), rng.permutation(np.flatnonzero(strange))
    rows = np.concatenate([known[: ROWS - count], other[:count]])
    policy = way(table.take(rows), model, epsilon, draw)
    parts = [_seen(policy, table.take(left)) for left in (known[ROWS - count :], other[count:])]
    return Seen(*((1 - SERVED) * a + SERVED * b for a, b in zip(*parts, strict=True)))


def _seen(policy: Policy, rows: Predictions) -> tuple[float, float]:
    found = replay(compile_policy(policy, rows.labels), rows)
    here = np.array([stage.variant != UPSTREAM for stage in policy.stages])[found.stage]
    return float(here.mean()), float((here & (found.answer != rows.label)).mean())


def _settings(model: str, draw: int) -> TuneSettings:
    return TuneSettings(reference=UPSTREAM, variants=(model, UPSTREAM), seed=draw)


def plain(rows: Predictions, model: str, epsilon: float, draw: int) -> Policy:
    """Tune as without cells."""
    return tune(rows, COSTS, Targets(max_accuracy_drop=epsilon), _settings(model, draw)).policy


def rival(rows: Predictions, model: str, epsilon: float, draw: int) -> Policy:
    """Bound disagreement among what is answered, as the rival does."""
    return tune(rows, COSTS, Targets(max_local_disagreement=epsilon), _settings(model, draw)).policy


def by_score(rows: Predictions, model: str, epsilon: float, draw: int) -> Policy:
    """Certify cells by score."""
    asked = Targets(max_accuracy_drop=epsilon)
    return tune_mix(rows, COSTS, asked, _settings(model, draw), "score").policy


def to_served(rows: Predictions, model: str, epsilon: float, draw: int, most: float = SERVED) -> Policy:
    """Certify every share of out-of-scope queries up to the one served."""
    asked, growing = Targets(max_accuracy_drop=epsilon), Growing(OUT_OF_SCOPE, most)
    return tune_mix(rows, COSTS, asked, _settings(model, draw), None, growing).policy


OF_ALL: dict[str, Way] = {
    "plain": plain,
    "`--max-share oos=0.2`": to_served,
    "`--max-share oos=1`: any share": partial(to_served, most=1.0),
    "`--cells score`": by_score,
}
OF_ANSWERED: dict[str, Way] = {"the rival's promise": rival, "`--cells score`": by_score}
