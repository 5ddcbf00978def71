"""Calibration texts are stratified and seeded; ranges are those of real texts without padding."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.datasets.data import Dataset
from compress.graphs.calibration import TENSORS_AT_A_TIME, calibration_rows, feeds_of, ranges_of
from compress.graphs.export import export_onnx
from compress.graphs.qdq import activation_scale, products_of
from contract.errors import SluiceError
from runtime.wordpiece import WordPieceEncoder
from tests.compress.conftest import random_network, toy_texts, toy_tokenizer


def dataset(counts: dict[str, int]) -> Dataset:
    """Return a data set with so many texts of each label."""
    label = tuple(name for name, count in counts.items() for _ in range(count))
    texts = tuple(f"text {i}" for i in range(len(label)))
    n = len(label)
    return Dataset(tuple(sorted(counts)), texts, label, ("train",) * n, ((),) * n)


@given(st.integers(1, 60), st.integers(0, 3))
def test_every_label_has_its_share(count: int, seed: int) -> None:
    """Labels differ by one text at most, unless one has no more; rows are different and ascend."""
    data = dataset({"a": 30, "b": 30, "c": 4})
    rows = calibration_rows(data, count, seed=seed)
    assert len(rows) == count
    assert (np.diff(rows) > 0).all()
    found = Counter(data.label[i] for i in rows)
    assert abs(found["a"] - found["b"]) <= 1
    assert found["c"] >= min(4, min(found["a"], found["b"]) - 1)


def test_the_draw_has_a_seed() -> None:
    """The same seed draws the same texts, another seed others; all are drawn when more are asked for."""
    data = dataset({"a": 40, "b": 40})
    first = calibration_rows(data, 10, seed=0)
    assert (first == calibration_rows(data, 10, seed=0)).all()
    assert (first != calibration_rows(data, 10, seed=1)).any()
    assert len(calibration_rows(data, 1000, seed=0)) == 80


def test_ranges_are_the_extremes_over_all_texts(tmp_path: Path) -> None:
    """Every input of a product has the least and greatest value that any text gave it."""
    network, path = random_network(), tmp_path / "m.onnx"
    export_onnx(network, path)
    encoder = WordPieceEncoder(toy_tokenizer().to_str().encode(), max_length=24)
    feeds = list(feeds_of(network, encoder.encode([text for text, _ in toy_texts(9)])))
    assert all(feed["input_ids"].shape[0] == 1 and feed["attention_mask"].all() for feed in feeds)
    names = [node.input[0] for node in products_of(onnx.load(path))]
    assert len(names) == 12 <= TENSORS_AT_A_TIME
    whole = ranges_of(path, names, feeds)
    parts = [ranges_of(path, names[:1], feeds[:4]), ranges_of(path, names[:1], feeds[4:])]
    assert whole[names[0]][0] == pytest.approx(min(part[names[0]][0] for part in parts))
    assert whole[names[0]][1] == pytest.approx(max(part[names[0]][1] for part in parts))
    assert all(low < high for low, high in whole.values())


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("found", [(float("nan"),) * 2, (0.0, float("inf"))])
def test_a_range_that_is_not_finite_has_no_scale(found: tuple[float, float], signed: bool) -> None:
    """A network that diverged ends in an error with a next step, not in scales that are no numbers."""
    with pytest.raises(SluiceError, match=r"not finite.*\n.*lower learning_rate"):
        activation_scale(found, signed=signed)
