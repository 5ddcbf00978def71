"""Predictions made by the serving runtime."""

from __future__ import annotations

import numpy as np

from compress.measurement.predict import answers_of, predict_logits
from runtime.api import LoadedVariant
from runtime.fake import FakeEncoder, FakeModel, FakeRuntime

LABELS = ("a", "b", "c")
TEXTS = [f"b: {i}" for i in range(600)]


def fake(accuracy: float) -> LoadedVariant:
    """A fake variant."""
    runtime = FakeRuntime(FakeModel(labels=LABELS, accuracy=accuracy))
    return LoadedVariant("fake", "0" * 64, LABELS, 1.0, FakeEncoder(), runtime)


def test_confidence_of_a_hand_computed_case() -> None:
    """The softmax of (0, ln 3) is (1/4, 3/4); a temperature of 2 gives 1 / (1 + 3 ** -0.5)."""
    logits = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(answers_of(logits, 1.0).confidence, [0.75, 1.0], rtol=1e-6)
    np.testing.assert_allclose(answers_of(logits, 2.0).confidence[0], 1 / (1 + 3**-0.5), rtol=1e-6)


def test_more_texts_than_one_call_holds_keep_their_order() -> None:
    """600 texts give 600 answers, each its own."""
    loaded = fake(0.8)
    found = answers_of(predict_logits(loaded, TEXTS), loaded.temperature)
    alone = np.concatenate([loaded.logits([text]) for text in TEXTS[::97]])
    assert found.logits is not None
    assert found.logits[::97].tolist() == alone.tolist()
    assert abs(found.confidence.mean() - 0.8) < 0.05


def test_the_temperature_of_the_variant_counts() -> None:
    """A temperature above 1 lowers confidence and changes no answer."""
    logits = predict_logits(fake(0.8), TEXTS)
    cool, warm = answers_of(logits, 1.0), answers_of(logits, 3.0)
    assert cool.prediction.tolist() == warm.prediction.tolist()
    assert (warm.confidence < cool.confidence).all()
