"""Fakes and families of fakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contract.costs import read_costs
from contract.errors import FamilyError
from contract.family import read_family
from runtime.fake import FakeEncoder, FakeModel, FakeRuntime, read_fake, true_label
from runtime.fake_family import TEACHER, write_fake_family
from runtime.fake_faults import FakeFaults
from runtime.load import load_variant
from tables.predictions import read_predictions

LABELS = ("sport", "tech", "politics")
ENCODER = FakeEncoder()
TEXTS = [f"sport: number {i}" for i in range(4000)]


def answers(model: FakeModel) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and confidences on TEXTS."""
    logits = FakeRuntime(model).logits(ENCODER.encode(TEXTS))
    return logits.argmax(axis=1), np.exp(logits.max(axis=1))


def test_texts_name_their_label_or_get_one_by_hash() -> None:
    """ "sport: ..." is sport; other texts have a fixed label each, all labels in use."""
    assert true_label("tech: a new phone", LABELS) == 1
    assert true_label("hello", LABELS) == true_label("hello", LABELS)
    assert {true_label(f"text {i}", LABELS) for i in range(50)} == {0, 1, 2}


@pytest.mark.parametrize("accuracy", [0.6, 0.9, 1.0])
def test_fakes_have_the_accuracy_asked_for_and_are_calibrated(accuracy: float) -> None:
    """Accuracy and mean confidence both are what was asked for, within four standard errors."""
    predictions, confidence = answers(FakeModel(labels=LABELS, accuracy=accuracy))
    right = predictions == 0
    tolerance = 4 * np.sqrt(0.25 / len(TEXTS))
    assert abs(right.mean() - accuracy) < tolerance
    assert abs(confidence.mean() - accuracy) < tolerance
    sure = confidence >= np.median(confidence)
    assert right[sure].mean() >= right.mean()


def test_a_better_fake_is_right_wherever_a_worse_one_is() -> None:
    """With one seed, accuracies are nested."""
    worse, _ = answers(FakeModel(labels=LABELS, accuracy=0.7))
    better, _ = answers(FakeModel(labels=LABELS, accuracy=0.9))
    assert ((better == 0) | (worse != 0)).all()


def test_errors_come_at_their_rate_and_by_the_seed() -> None:
    """The same seed fails on the same calls; rate 0 never fails."""

    def failures(seed: int, rate: float) -> list[int]:
        runtime = FakeRuntime(FakeModel(labels=LABELS, error_rate=rate, seed=seed))
        failed = []
        for i in range(200):
            try:
                runtime.logits(ENCODER.encode(["x"]))
            except RuntimeError:
                failed.append(i)
        return failed

    assert failures(1, 0.3) == failures(1, 0.3)
    assert failures(1, 0.3) != failures(2, 0.3)
    assert 30 < len(failures(1, 0.3)) < 90
    assert failures(1, 0.0) == []


def test_strange_texts_get_an_answer() -> None:
    """Empty text and half a surrogate pair are answered."""
    logits = FakeRuntime(FakeModel(labels=LABELS)).logits(ENCODER.encode(["", "\ud800"]))
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, rtol=1e-5)


def test_a_bad_fake_is_refused_by_file_and_key(tmp_path: Path) -> None:
    """An accuracy above 1 names the file and the key."""
    path = tmp_path / "fake.json"
    path.write_text('{"labels": ["a", "b"], "accuracy": 2}')
    with pytest.raises(FamilyError, match=r"fake\.json: accuracy"):
        read_fake(path)


def test_a_fake_family_is_whole(tmp_path: Path) -> None:
    """It reads back verified, and its variants answer as its predictions say."""
    write_fake_family(tmp_path, delay_ms=0.0, seed=3, rows=300)
    family = read_family(tmp_path)
    predictions = read_predictions(tmp_path / "predictions.parquet")
    assert set(predictions.names) == set(family.names) == set(read_costs(tmp_path / "costs.json"))
    assert family.teacher == TEACHER
    assert predictions.split is not None
    assert set(predictions.split.tolist()) == {"tune", "certify", "test"}
    import pyarrow.parquet as pq

    texts = pq.read_table(tmp_path / "data.parquet")["text"].to_pylist()
    for name in family.names:
        loaded = load_variant(tmp_path, family, name)
        seen = predictions.variants[name]
        assert loaded.logits(texts).argmax(axis=1).tolist() == seen.prediction.tolist()


def test_the_same_seed_writes_the_same_family(tmp_path: Path) -> None:
    """Manifests of one seed are equal, those of two are not."""
    one, same, other = (
        write_fake_family(tmp_path / name, seed=seed, rows=100)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one.sha256 == same.sha256 != other.sha256


def test_delays_and_errors_by_variant(tmp_path: Path) -> None:
    """A mapping sets one variant and leaves the others at zero."""
    write_fake_family(tmp_path, delay_ms={"fake-large": 5.0}, error_rate={"fake-small": 0.5}, rows=60)
    small, large = read_fake(tmp_path / "fake-small.json"), read_fake(tmp_path / "fake-large.json")
    assert (small.delay_ms, small.error_rate) == (0.0, 0.5)
    assert (large.delay_ms, large.error_rate) == (5.0, 0.0)


@pytest.mark.parametrize("fault", ["wrong_shape", "not_a_number"])
def test_a_fake_gives_answers_that_are_none_when_told_to(fault: str) -> None:
    """The share asked for has a row too few or values that are no numbers; the others are what they were."""
    encoded = ENCODER.encode(TEXTS[:3])
    right = FakeRuntime(FakeModel(labels=LABELS)).logits(encoded)
    faulty = FakeRuntime(FakeModel(labels=LABELS, faults=FakeFaults.model_validate({fault: 0.3})))
    given = [faulty.logits(encoded) for _ in range(400)]
    whole = [rows for rows in given if rows.shape == right.shape and np.isfinite(rows).all()]
    assert 80 <= 400 - len(whole) <= 160
    assert all(np.array_equal(rows, right) for rows in whole)


def test_a_text_can_ask_for_a_fault() -> None:
    """Only calls with a text that names a fault have it, where the fake takes such words."""
    fake = FakeRuntime(FakeModel(labels=LABELS, faults=FakeFaults(by_text=True)))
    shapes = [fake.logits(ENCODER.encode([text, "b"])).shape for text in ("a", "a [wrong_shape]", "a")]
    assert shapes == [(2, 3), (1, 3), (2, 3)]
    assert np.isnan(fake.logits(ENCODER.encode(["a [not_a_number]"]))).any()
    deaf = FakeRuntime(FakeModel(labels=LABELS))
    assert deaf.logits(ENCODER.encode(["a [wrong_shape]"])).shape == (1, 3)


def test_a_fake_cannot_go_wrong_more_often_than_always() -> None:
    """Shares that add up to more than one are refused."""
    with pytest.raises(ValueError, match="more than 1"):
        FakeFaults(late=0.6, never=0.6)
