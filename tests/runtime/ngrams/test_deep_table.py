"""The deep table's runtime, in numpy and compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import FamilyError
from runtime.ngrams.compiled import COMPILED
from runtime.ngrams.deep_table import DeepTable, DeepTableRuntime, in_int8, read_deep_table, write_deep_table
from runtime.ngrams.encoder import NgramEncoder, NgramOptions
from runtime.ngrams.features import weighted_sum
from tests.runtime.ngrams.test_compiled import TEXTS, both

OPTIONS = NgramOptions(bits=10)
WORDS = NgramOptions(word_orders=1, longest=0, bits=16)


def deep_table(
    options: NgramOptions, *, hidden: int, classes: int, seed: int = 0, share: float = 0.5
) -> DeepTable:
    """A deep table of random numbers for a share of all buckets; one bias is minus zero."""
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(rng.random(1 << options.bits) < share)
    vectors, scales = in_int8(rng.normal(size=(known.size, hidden)).astype(np.float32), axis=1)
    dense, dense_scales = in_int8(rng.normal(size=(hidden, classes)).astype(np.float32), axis=0)
    return DeepTable(
        buckets=known.astype(np.uint32),
        idf=(1 + 8 * rng.random(known.size)).astype(np.float32),
        vectors=vectors,
        scales=scales,
        hidden_bias=np.append(np.float32(-0.0), rng.normal(size=hidden - 1)).astype(np.float32),
        dense=dense,
        dense_scales=dense_scales,
        bias=np.append(np.float32(-0.0), rng.normal(size=classes - 1)).astype(np.float32),
        encoder=options.sha256,
        bits=options.bits,
    )


def test_logits_of_a_hand_computed_case() -> None:
    """A unit that two words open together answers for both, and is silent for either alone."""
    encoder = NgramEncoder(WORDS)
    buckets = sorted(int(encoder.buckets(word)[0]) for word in ("not", "good"))
    table = DeepTable(
        buckets=np.array(buckets, dtype=np.uint32),
        idf=np.ones(2, dtype=np.float32),
        vectors=np.full((2, 1), 100, dtype=np.int8),
        scales=np.full(2, 0.01, dtype=np.float32),
        hidden_bias=np.array([-1], dtype=np.float32),
        dense=np.array([[50, -50]], dtype=np.int8),
        dense_scales=np.array([0.1, 0.2], dtype=np.float32),
        bias=np.array([0.5, 0], dtype=np.float32),
        encoder=encoder.sha256,
        bits=WORDS.bits,
    )
    logits = DeepTableRuntime(table).logits(encoder.encode(["not", "good", "not good", ""]))
    unit = np.sqrt(2) - 1
    expected = [[0.5, 0], [0.5, 0], [0.5 + 5 * unit, -10 * unit], [0.5, 0]]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert logits.dtype == np.float32


@pytest.mark.skipif(not COMPILED, reason="this installation has no compiled scoring")
@given(
    st.lists(TEXTS, min_size=1, max_size=4),
    st.integers(1, 70) | st.just(1),
    st.integers(2, 40),
    st.sampled_from([0, 0.5, 1]),
)
@settings(max_examples=200, deadline=None)
def test_compiled_logits_are_numpys_bit_for_bit(
    texts: list[str], hidden: int, classes: int, share: float
) -> None:
    """Any text gets the same bits, whatever the shape and whatever share of its n-grams is known."""
    runtime = DeepTableRuntime(deep_table(OPTIONS, hidden=hidden, classes=classes, share=share))
    plain, compiled = both(runtime, NgramEncoder(OPTIONS), texts)
    assert compiled.tobytes() == plain.tobytes()


@given(st.integers(1, 60), st.sampled_from([1, 2, 3, 7, 16]), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_sums_are_added_in_the_order_of_the_rows(rows: int, width: int, seed: int) -> None:
    """Tables of any width, one column too, are added up one row after the other."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, width)).astype(np.float32)
    values = rng.normal(size=rows).astype(np.float32)
    expected = np.zeros(width, dtype=np.float32)
    for row, value in zip(table, values, strict=True):
        expected += value * row
    assert weighted_sum(table, values).tobytes() == expected.tobytes()


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_int8_is_within_half_a_step(numbers: list[list[float]]) -> None:
    """Rounding moves a number by half a step of its own line at most; a line of zeros stays zeros."""
    wanted = np.array(numbers, dtype=np.float32)
    small, steps = in_int8(wanted, axis=1)
    moved = np.abs(small * steps[:, None] - wanted)
    assert (moved <= steps[:, None] * 0.5001 + 1e-37).all()


def test_disk_round_trip_is_reproducible(tmp_path: Path) -> None:
    """Writing twice gives the same bytes, and reading gives the model back."""
    table = deep_table(OPTIONS, hidden=3, classes=2)
    write_deep_table(tmp_path / "a.npz", table)
    write_deep_table(tmp_path / "b.npz", table)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = read_deep_table(tmp_path / "a.npz")
    assert again.vectors.tolist() == table.vectors.tolist()
    assert again.parameters == table.parameters == 3 * table.buckets.size + 3 + 6 + 2


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A row, a unit or a class too many in one array is a FamilyError that names the file."""
    table = deep_table(OPTIONS, hidden=3, classes=2)
    unfit: list[dict[str, Any]] = [
        {"scales": table.scales[1:]}, {"hidden_bias": table.hidden_bias[1:]}, {"dense": table.dense.T},
        {"bias": table.bias[1:]}, {"buckets": table.buckets[::-1]}, {"vectors": table.vectors[0]},
    ]  # fmt: skip
    for change in unfit:
        write_deep_table(tmp_path / "unfit.npz", replace(table, **change))
        with pytest.raises(FamilyError, match=r"unfit\.npz"):
            read_deep_table(tmp_path / "unfit.npz")
