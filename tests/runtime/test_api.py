"""Encodings, taken apart and put together."""

from __future__ import annotations

import numpy as np

from runtime.api import Encoded, stack
from runtime.ngrams.encoder import NgramEncoder, NgramOptions


def tokens(*rows: list[int]) -> Encoded:
    """Token ids and their mask, as a wordpiece encoder gives them."""
    longest = max(len(row) for row in rows)
    ids = np.array([row + [0] * (longest - len(row)) for row in rows])
    lengths = np.array([len(row) for row in rows])
    return Encoded({"ids": ids, "mask": (ids > 0).astype(np.int64)}, lengths, "e" * 64)


def test_parts_of_different_length_are_padded_to_the_longest() -> None:
    """Rows keep their order, and padding is zero in every array."""
    whole = stack([tokens([5, 6]), tokens([1, 2, 3], [4])])
    assert whole.arrays["ids"].tolist() == [[5, 6, 0], [1, 2, 3], [4, 0, 0]]
    assert whole.arrays["mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert whole.lengths.tolist() == [2, 3, 1]
    assert whole.encoder == "e" * 64


def test_taking_and_stacking_give_back_the_whole() -> None:
    """For encodings of ragged rows too, as n-grams are."""
    encoder = NgramEncoder(NgramOptions())
    texts = ["one", "two words", "", "and three of them"]
    whole = encoder.encode(texts)
    again = stack([whole.take([2, 3]), whole.take(slice(0, 2))])
    for name, array in whole.arrays.items():
        for row, place in zip(again.arrays[name], (2, 3, 0, 1), strict=True):
            np.testing.assert_array_equal(row, array[place])
    assert again.lengths.tolist() == whole.lengths[[2, 3, 0, 1]].tolist()
