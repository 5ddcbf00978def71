"""The linear runtime."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import FamilyError
from runtime.ngrams.encoder import NgramEncoder, NgramOptions
from runtime.ngrams.features import tf_idf
from runtime.ngrams.linear import LinearModel, LinearRuntime, read_linear, write_linear

OPTIONS = NgramOptions(word_orders=1, longest=0, bits=16)
ENCODER = NgramEncoder(OPTIONS)


def model_of(words: dict[str, tuple[float, float]]) -> LinearModel:
    """A linear model of single words with weights of two classes and idf 1."""
    by_bucket = {int(ENCODER.buckets(word)[0]): weights for word, weights in words.items()}
    buckets = sorted(by_bucket)
    return LinearModel(
        buckets=np.array(buckets, dtype=np.uint32),
        weights=np.array([by_bucket[b] for b in buckets], dtype=np.float32),
        idf=np.ones(len(buckets), dtype=np.float32),
        bias=np.array([0.5, 0.0], dtype=np.float32),
        encoder=ENCODER.sha256,
        bits=OPTIONS.bits,
    )


def test_logits_of_a_hand_computed_case() -> None:
    """Counts are sublinear, values L2-normalised, unknown words ignored, the bias added."""
    runtime = LinearRuntime(model_of({"good": (0, 1), "bad": (1, 0)}))
    logits = runtime.logits(ENCODER.encode(["good bad unknown", "bad", "", "good good bad"]))
    root = 1 / np.sqrt(2)
    twice = 1 + np.log(2)
    norm = np.hypot(twice, 1)
    expected = [[0.5 + root, root], [1.5, 0], [0.5, 0], [0.5 + 1 / norm, twice / norm]]
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert logits.dtype == np.float32


def test_batchmates_change_no_bit() -> None:
    """A text's logits are the same alone and among others."""
    rng = np.random.default_rng(0)
    words = {f"w{i}": tuple(rng.normal(size=2)) for i in range(50)}
    runtime = LinearRuntime(model_of(words))
    texts = [" ".join(rng.choice(list(words), 12)) for _ in range(8)]
    together = runtime.logits(ENCODER.encode(texts))
    alone = np.concatenate([runtime.logits(ENCODER.encode([text])) for text in texts])
    assert together.tobytes() == alone.tobytes()


def test_tf_idf_merges_repeats() -> None:
    """Rows come back distinct and ascending, with unit norm."""
    rows, values = tf_idf(np.array([5, -1, 2, 5, 2, 5], dtype=np.int32), np.ones(6, dtype=np.float32))
    assert rows.tolist() == [2, 5]
    assert values[1] > values[0]
    np.testing.assert_allclose(np.linalg.norm(values), 1, rtol=1e-6)


@given(st.lists(st.integers(-1, 12), max_size=80))
@settings(max_examples=200, deadline=None)
def test_tf_idf_equals_the_plain_definition(rows: list[int]) -> None:
    """Counting row by row gives the same values; negative rows count for nothing."""
    idf = np.linspace(1, 3, 13, dtype=np.float32)
    counts = Counter(row for row in rows if row >= 0)
    raw = {row: (1 + math.log(count)) * float(idf[row]) for row, count in sorted(counts.items())}
    norm = math.sqrt(sum(value * value for value in raw.values()))
    distinct, values = tf_idf(np.array(rows, dtype=np.int32), idf)
    assert distinct.tolist() == list(raw)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [value / norm for value in raw.values()], rtol=1e-5)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_logits_equal_the_plain_definition(texts: list[str]) -> None:
    """Logits are the bias plus the weights of the n-grams known, times their values, for any text."""
    encoder = NgramEncoder(NgramOptions(bits=8))
    rng = np.random.default_rng(0)
    known = np.flatnonzero(rng.random(256) < 0.5)
    weights, bias = rng.normal(size=(known.size, 3)), rng.normal(size=3)
    model = LinearModel(
        buckets=known.astype(np.uint32),
        weights=weights.astype(np.float32),
        idf=np.linspace(1, 3, known.size, dtype=np.float32),
        bias=bias.astype(np.float32),
        encoder=encoder.sha256,
        bits=8,
    )
    place = {int(bucket): row for row, bucket in enumerate(known)}
    expected = []
    for text in texts:
        counts = Counter(place[int(b)] for b in encoder.buckets(text) if int(b) in place)
        values = {row: (1 + math.log(count)) * model.idf[row] for row, count in counts.items()}
        norm = math.sqrt(sum(value**2 for value in values.values())) or 1.0
        expected.append(bias + sum((v / norm * weights[row] for row, v in values.items()), np.zeros(3)))
    logits = LinearRuntime(model).logits(encoder.encode(texts))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_disk_round_trip_is_reproducible(tmp_path: Path) -> None:
    """Writing twice gives the same bytes, and reading gives the model back."""
    model = model_of({"good": (0, 1), "bad": (1, 0)})
    write_linear(tmp_path / "a.npz", model)
    write_linear(tmp_path / "b.npz", model)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = read_linear(tmp_path / "a.npz")
    assert again.weights.tolist() == model.weights.tolist()
    assert (again.encoder, again.bits, again.parameters) == (model.encoder, 16, 6)


def test_pickles_and_other_files_are_refused(tmp_path: Path) -> None:
    """An archive with pickled objects, a broken file and arrays that do not fit are FamilyErrors."""
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, buckets=np.array([{}], dtype=object))
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 no archive")
    unfit = tmp_path / "unfit.npz"
    np.savez(
        unfit,
        buckets=np.array([2, 1], dtype=np.uint32),
        weights=np.zeros((2, 2), dtype=np.float32),
        idf=np.ones(2, dtype=np.float32),
        bias=np.zeros(2, dtype=np.float32),
        encoder=np.array("x"),
        bits=np.array(16),
    )
    for path in (pickled, broken, unfit, tmp_path / "absent.npz"):
        with pytest.raises(FamilyError, match=path.name):
            read_linear(path)


def test_input_of_another_encoder_is_refused() -> None:
    """Encoder hashes must match."""
    runtime = LinearRuntime(model_of({"good": (0, 1)}))
    with pytest.raises(FamilyError, match="encoder hashes differ"):
        runtime.logits(NgramEncoder(NgramOptions(bits=17)).encode(["good"]))
