"""Training of the deep table, where n-grams count together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress.learning.deep_table import DeepTableSettings, train_deep_table
from compress.learning.linear import LinearSettings, NgramRows
from compress.pipeline import run_pipeline
from compress.recipes.recipe import parse_recipe
from runtime.api import Runtime
from runtime.load import load_variant
from runtime.ngrams.deep_table import DeepTableRuntime
from runtime.ngrams.encoder import NgramEncoder, NgramOptions
from runtime.ngrams.linear import LinearRuntime

OPTIONS = NgramOptions(word_orders=2, longest=0, bits=14)
SETTINGS = DeepTableSettings(epochs=40, soft_weight=1.0, hidden=16)
PRAISE, BLAME = ("good", "fine", "lovely"), ("bad", "poor", "awful")
FILLER = ("the", "a", "film", "plot", "was", "with", "of", "story", "cast", "music", "long", "one")


def reviews(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Reviews of one verdict among filler, half of them with a negation far from it, and what they mean."""
    rng = np.random.default_rng(seed)
    verdict, negated = rng.integers(0, 2, n), rng.integers(0, 2, n)
    texts = []
    for good, turned in zip(verdict, negated, strict=True):
        opening = ["never" if turned else "truly", *rng.choice(FILLER, 3)]
        texts.append(" ".join([*opening, rng.choice(PRAISE if good else BLAME), *rng.choice(FILLER, 3)]))
    return texts, verdict ^ negated


def accuracy(runtime: Runtime, texts: list[str], targets: np.ndarray) -> float:
    """Share of texts that a serving runtime answers right."""
    logits = runtime.logits(NgramEncoder(OPTIONS).encode(texts))
    return float((logits.argmax(axis=1) == targets).mean())


def test_a_negation_far_from_its_word_is_learnt_where_a_linear_model_cannot() -> None:
    """From a teacher's soft answers alone the deep table learns what both words mean together, in INT8."""
    texts, targets = reviews(800, 0)
    teacher = (3 * np.eye(2, dtype=np.float32))[targets]
    unlabelled = np.full(len(texts), -1)
    rows = NgramRows.of(texts, OPTIONS, min_documents=2)
    linear = rows.train(
        unlabelled, 2, settings=LinearSettings(epochs=15, soft_weight=1.0), seed=0, teacher_logits=teacher
    )
    deep = train_deep_table(rows, unlabelled, 2, settings=SETTINGS, seed=0, teacher_logits=teacher)
    tests = reviews(400, 1)
    assert accuracy(LinearRuntime(linear), *tests) < 0.65
    assert accuracy(DeepTableRuntime(deep), *tests) > 0.95


def test_the_seed_decides_every_bit() -> None:
    """One seed gives one deep table, another seed another."""
    texts, targets = reviews(100, 0)
    rows = NgramRows.of(texts, OPTIONS, min_documents=2)
    one, same, other = (
        train_deep_table(rows, targets, 2, settings=replace(SETTINGS, epochs=2), seed=seed)
        for seed in (1, 1, 2)
    )
    assert one.vectors.tobytes() == same.vectors.tobytes() != other.vectors.tobytes()
    assert one.dense.tobytes() == same.dense.tobytes()


def test_without_label_and_teacher_there_is_nothing_to_learn() -> None:
    """Such a text is refused."""
    rows = NgramRows.of(["a b"], OPTIONS, min_documents=1)
    with pytest.raises(ValueError, match="teacher"):
        train_deep_table(rows, np.array([-1]), 2, settings=SETTINGS, seed=0)


def test_a_recipe_makes_one_from_answers_alone(tmp_path: Path) -> None:
    """The family tells its kind and precision, and its loaded variant answers as it was measured."""
    texts, targets = reviews(1000, 0)
    texts = list(dict.fromkeys(texts))
    names = ["poor" if target == 0 else "well" for target in targets]
    (tmp_path / "data.csv").write_text(
        "text,label,said\n"
        + "".join(f"{text},{name},{name}\n" for text, name in zip(texts, names, strict=False))
    )
    recipe = parse_recipe(
        {
            "name": "reviews",
            "data": {"file": "data.csv"},
            "teacher": {"answers": {"label": "said"}},
            "variants": [
                {
                    "name": "deep", "kind": "deep_table", "parent": "teacher", "bits": 12, "word_orders": 1,
                    "longest": 0, "hidden": 16, "epochs": 40,
                },
                {
                    "name": "linear", "kind": "linear", "parent": "teacher", "bits": 12, "word_orders": 1,
                    "longest": 0,
                },
            ],
            "target": {"calls": 20, "seconds": 0.1},
        },
        folder=tmp_path,
    )  # fmt: skip
    family = run_pipeline(recipe, tmp_path / "family")
    deep, linear = family.variant("deep"), family.variant("linear")
    assert (deep.kind, deep.runtime, deep.precision) == ("deep_table", "deep_table", "int8-weights")
    assert deep.encoder == linear.encoder
    assert (deep.accuracy or 0) > 0.9 > (linear.accuracy or 1)
    loaded = load_variant(tmp_path / "family", family, "deep")
    assert loaded.logits(texts[:5]).argmax(axis=1).tolist() == [
        family.labels.index(name) for name in names[:5]
    ]
