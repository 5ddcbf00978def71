"""Training of the linear stage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compress.learning.linear import LinearSettings, NgramRows
from runtime.ngrams.encoder import NgramEncoder, NgramOptions
from runtime.ngrams.features import tf_idf
from runtime.ngrams.linear import LinearModel, LinearRuntime

OPTIONS = NgramOptions(bits=14)
SETTINGS = LinearSettings(epochs=12, soft_weight=0.7)
TOPICS = (("goal", "match", "team"), ("chip", "phone", "code"), ("vote", "law", "party"))
FILLER = ("the", "a", "of", "new", "today")


def texts_of(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Sentences of a topic word among filler, and their topics."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, n)
    texts = []
    for topic in targets:
        words = [*rng.choice(FILLER, 4), *rng.choice(TOPICS[topic], 1)]
        texts.append(" ".join(rng.permutation(words)))
    return texts, targets


def rows_of(texts: list[str], options: NgramOptions = OPTIONS) -> NgramRows:
    """Return texts as the linear stage sees them; an n-gram needs to occur in two of them."""
    return NgramRows.of(texts, options, min_documents=2)


def accuracy(model: LinearModel, texts: list[str], targets: np.ndarray) -> float:
    """Share of texts that the serving runtime answers right."""
    logits = LinearRuntime(model).logits(NgramEncoder(OPTIONS).encode(texts))
    return float((logits.argmax(axis=1) == targets).mean())


def test_learns_and_generalises() -> None:
    """New sentences of the same topics are told apart by the runtime that serves."""
    texts, targets = texts_of(300, 0)
    model = rows_of(texts).train(targets, 3, settings=SETTINGS, seed=0)
    assert accuracy(model, *texts_of(200, 1)) > 0.97
    assert model.encoder == OPTIONS.sha256


def test_the_seed_decides_every_bit() -> None:
    """One seed gives one model, another seed another."""
    texts, targets = texts_of(100, 0)
    one, same, other = (
        rows_of(texts).train(targets, 3, settings=replace(SETTINGS, epochs=2), seed=seed)
        for seed in (1, 1, 2)
    )
    assert one.weights.tobytes() == same.weights.tobytes() != other.weights.tobytes()


def test_a_teacher_labels_what_has_no_label() -> None:
    """Texts without a label are learnt from the teacher's answers alone."""
    texts, targets = texts_of(300, 0)
    logits = (8 * np.eye(3, dtype=np.float32))[targets]
    model = rows_of(texts).train(np.full(300, -1), 3, settings=SETTINGS, seed=0, teacher_logits=logits)
    assert accuracy(model, *texts_of(200, 1)) > 0.97


def test_without_label_and_teacher_there_is_nothing_to_learn() -> None:
    """Such a text is refused."""
    with pytest.raises(ValueError, match="teacher"):
        rows_of(["a b"]).train(np.array([-1]), 2, settings=SETTINGS, seed=0)


def test_soft_targets_make_a_model_less_sure() -> None:
    """A doubting teacher gives flatter answers than hard labels do."""
    texts, targets = texts_of(300, 0)
    doubtful = np.eye(3, dtype=np.float32)[targets]
    settings = replace(SETTINGS, soft_weight=1.0)
    hard, soft = (
        rows_of(texts).train(targets, 3, settings=settings, seed=0, teacher_logits=logits)
        for logits in (None, doubtful)
    )
    encoded = NgramEncoder(OPTIONS).encode(texts[:50])

    def spread(model: LinearModel) -> float:
        logits = LinearRuntime(model).logits(encoded)
        return float((logits.max(axis=1) - logits.min(axis=1)).mean())

    assert spread(soft) < spread(hard)


def test_rare_ngrams_have_no_weight() -> None:
    """What occurs in fewer texts than asked is left out, and idf follows the smoothed formula."""
    options = NgramOptions(word_orders=1, longest=0, bits=14)
    texts = ["red blue", "red green", "red"]
    model = rows_of(texts, options).train(np.array([0, 1, 0]), 2, settings=SETTINGS, seed=0)
    assert model.buckets.tolist() == NgramEncoder(options).buckets("red").tolist()
    np.testing.assert_allclose(model.idf, [1.0], rtol=1e-6)
    _, values = tf_idf(np.array([0], dtype=np.int32), model.idf)
    assert values.tolist() == [1.0]
