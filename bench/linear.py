"""What one text costs the linear stage and the deep table in process: in numpy, and compiled.

    python -m bench.linear --train TRAIN.csv --test TEST.csv [--rounds 5] [--seed 0]

Both are trained on the labels of TRAIN, with the settings that a recipe has by default. Then the texts of
TEST are answered one by one, all of them in every round, by one thread, and each call is timed: encoding and
logits, and in the last column also the largest probability, which a cascade compares with its threshold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.learning.deep_table import DeepTableSettings, train_deep_table
from compress.learning.linear import LinearSettings, NgramRows
from compress.recipes.parts import DeepTablePart, LinearPart
from contract.formulas import exact_quantile, wilson_interval
from router.decide.scores import score_one
from runtime.api import Encoded, Logits
from runtime.machine import describe_machine
from runtime.ngrams.deep_table import DeepTableRuntime
from runtime.ngrams.encoder import BUCKETS, NgramEncoder, NgramOptions
from runtime.ngrams.features import NgramRuntime
from runtime.ngrams.linear import LinearRuntime
from tables.labelled import Labelled, read_labelled

Answer = Callable[[str], Logits]
TEMPERATURE = 1.3


@dataclass(frozen=True)
class Model:
    """A trained model, the size of its arrays and what its training took."""

    name: str
    runtime: NgramRuntime
    megabytes: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One arrangement: microseconds of a text at the median and the 99th percentile, and with its score."""

    arrangement: str
    p50_us: float
    p99_us: float
    with_score_us: float


def models_of(train: Labelled, classes: Sequence[str], options: NgramOptions, seed: int) -> list[Model]:
    """Train a linear stage and a deep table on labels."""
    place = {label: index for index, label in enumerate(classes)}
    targets = np.array([place[str(label)] for label in train.labels], dtype=np.int64)
    linear_part = LinearPart(kind="linear", name="linear")
    deep_part = DeepTablePart(kind="deep_table", name="deep")
    rows = NgramRows.of(train.texts, options, min_documents=LinearSettings.min_documents)
    started = time.perf_counter()
    linear = rows.train(
        targets, len(classes), settings=LinearSettings(linear_part.epochs, soft_weight=0.0), seed=seed
    )
    between = time.perf_counter()
    settings = DeepTableSettings(
        deep_part.epochs, soft_weight=0.0, hidden=deep_part.hidden, dropout=deep_part.dropout
    )
    deep = train_deep_table(rows, targets, len(classes), settings=settings, seed=seed)
    ended = time.perf_counter()
    return [
        Model("linear", LinearRuntime(linear), linear.weights.nbytes / 1e6, between - started),
        Model("deep table", DeepTableRuntime(deep), deep.vectors.nbytes / 1e6, ended - between),
    ]


def numpy_answer(runtime: NgramRuntime, encoder: NgramEncoder) -> Answer:
    """Return what answers one text without compiled code."""

    def answer(text: str) -> Logits:
        rows = np.empty(1, dtype=object)
        rows[0] = encoder.buckets_in_numpy(text)
        lengths = np.array([rows[0].size], dtype=np.int64)
        return runtime.logits(Encoded({BUCKETS: rows}, lengths, encoder.sha256))

    return answer


def compiled_answer(runtime: NgramRuntime, encoder: NgramEncoder) -> Answer | None:
    """Return what answers one text in compiled code, None where this installation has none."""
    compiled = runtime.compiled(encoder.options)
    return None if compiled is None else lambda text: compiled([text])


def timed(call: Callable[[str], object], texts: Sequence[str], rounds: int) -> NDArray[np.float64]:
    """Return the microseconds [rounds * N] of every call, after a round that is not counted."""
    found = np.empty(rounds * len(texts))
    for text in texts:
        call(text)
    place = 0
    for _ in range(rounds):
        for text in texts:
            started = time.perf_counter_ns()
            call(text)
            found[place] = time.perf_counter_ns() - started
            place += 1
    return found / 1e3


def measure(name: str, answer: Answer, texts: Sequence[str], rounds: int) -> Row:
    """Time one arrangement."""
    alone = timed(answer, texts, rounds).tolist()
    scored = timed(lambda text: score_one(answer(text)[0], TEMPERATURE), texts, rounds).tolist()
    return Row(name, exact_quantile(alone, 0.5), exact_quantile(alone, 0.99), exact_quantile(scored, 0.5))


def main() -> None:
    """Train, measure, and print a page in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--train", type=Path, required=True, help="labelled texts")
    parser.add_argument("--test", type=Path, required=True, help="labelled texts that are timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, test = read_labelled(given.train), read_labelled(given.test)
    options = NgramOptions()
    encoder, machine = NgramEncoder(options), describe_machine()
    models = models_of(train, train.classes, options, given.seed)
    answers: list[tuple[str, Answer]] = []
    print("| model | test accuracy | interval (95%) | MB | training, s |\n| --- | --- | --- | --- | --- |")
    for model in models:
        plain, compiled = (
            numpy_answer(model.runtime, encoder),
            compiled_answer(model.runtime, encoder),
        )
        logits = np.concatenate([plain(text) for text in test.texts])
        said = [train.classes[place] for place in logits.argmax(axis=1)]
        right = sum(one == true for one, true in zip(said, test.labels, strict=True))
        low, high = wilson_interval(right, len(test))
        told = (
            f"{right / len(test):.2%} | {low:.2%} to {high:.2%} | {model.megabytes:.1f} | {model.seconds:.0f}"
        )
        print(f"| {model.name} | {told} |")
        answers.append((f"{model.name}, numpy", plain))
        if compiled is not None:
            same = np.concatenate([compiled(text) for text in test.texts]).tobytes() == logits.tobytes()
            assert same, "compiled code answers otherwise than numpy"
            answers.append((f"{model.name}, compiled", compiled))
    print("\n| one text | p50, µs | p99, µs | p50 with the score, µs |\n| --- | --- | --- | --- |")
    for name, answer in answers:
        row = measure(name, answer, test.texts, given.rounds)
        print(f"| {row.arrangement} | {row.p50_us:.1f} | {row.p99_us:.1f} | {row.with_score_us:.1f} |")
    characters = float(np.mean([len(text) for text in test.texts]))
    print(
        f"\n{machine.cpu}, {machine.cores:g} cores, one thread; {len(test):,} texts of {characters:.0f} "
        "characters on average, "
        f"{len(train.classes)} classes, {given.rounds} rounds; Python {machine.python}."
    )


if __name__ == "__main__":
    main()
