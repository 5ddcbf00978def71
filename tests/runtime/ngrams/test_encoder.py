"""The n-gram encoder, against a plain one that hashes n-gram by n-gram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from contract.errors import FamilyError
from runtime.ngrams import encoder as ngrams
from runtime.ngrams.encoder import NgramEncoder, NgramOptions, ngram_options, ngram_spec

MASK = (1 << 64) - 1
ENCODER = NgramEncoder(NgramOptions())
KNOWN = [326919, 687500, 453533, 377676]


def plain_buckets(text: str, options: NgramOptions) -> list[int]:
    """Hash every n-gram on its own, with Python integers."""
    lowered = text[: options.max_characters].lower().encode("utf-8", "replace")
    words = lowered.translate(ngrams._SEPARATORS).split()
    data = b" " + b" ".join(words) + b" "
    grams = [
        (data[i : i + size], 0)
        for size in range(options.shortest, options.longest + 1)
        for i in range(len(data) - size + 1)
    ]
    for order in range(1, options.word_orders + 1):
        for i in range(len(words) - order + 1):
            grams.append((b" " + b" ".join(words[i : i + order]), int(ngrams._WORD_SALT)))
    found = []
    for gram, salt in grams:
        value = sum(byte * pow(ngrams._BASE, j, 1 << 64) for j, byte in enumerate(gram)) + salt & MASK
        value = (value ^ (value >> 32)) * int(ngrams._MIX) & MASK
        found.append(value >> (64 - options.bits))
    return found if words else []


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_equals_the_plain_definition(text: str) -> None:
    """Prefix sums give what hashing each n-gram by itself gives."""
    assert ENCODER.buckets(text).tolist() == plain_buckets(text, ENCODER.options)


@given(st.text("ab \u00e9", max_size=20), st.integers(0, 4), st.integers(1, 4), st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_equals_the_plain_definition_whatever_the_sizes(
    text: str, words: int, shortest: int, longest: int
) -> None:
    """Texts shorter than a window, repeats, and options without words or characters are right too."""
    assume(words or longest >= shortest)
    options = NgramOptions(word_orders=words, shortest=shortest, longest=longest)
    assert NgramEncoder(options).buckets(text).tolist() == plain_buckets(text, options)


def test_known_answer() -> None:
    """The buckets of a fixed text never change: families on disk depend on it."""
    assert ENCODER.buckets("Ab c").tolist() == plain_buckets("ab, C!", ENCODER.options)
    assert ENCODER.buckets("Ab c")[:4].tolist() == KNOWN


def test_long_texts_are_cut_and_tables_grow() -> None:
    """Texts longer than the tables are hashed right, and nothing beyond max_characters counts."""
    options = NgramOptions(word_orders=1, shortest=3, longest=3, max_characters=3000)
    encoder = NgramEncoder(options)
    text = "abcdefg hij " * 400
    assert encoder.buckets(text).tolist() == plain_buckets(text, options)
    assert encoder.buckets(text).tolist() == encoder.buckets(text[:3000]).tolist()


def test_empty_and_strange_texts_are_legal() -> None:
    """Texts without words have no n-grams; half a surrogate pair is replaced."""
    encoded = ENCODER.encode(["", " \n!?", "\0", "caf\u00e9 \ud800"])
    assert encoded.lengths[:3].tolist() == [0, 0, 0]
    assert encoded.lengths[3] > 0
    assert len(encoded) == 4


def test_buckets_spread_evenly() -> None:
    """Distinct words land in distinct buckets about as often as chance allows."""
    encoder = NgramEncoder(NgramOptions(word_orders=1, longest=0, bits=20))
    words = [f"w{i}" for i in range(20_000)]
    used = len(np.unique(np.concatenate([encoder.buckets(word) for word in words])))
    expected = 2**20 * (1 - (1 - 2**-20) ** 20_000)
    assert abs(used - expected) < 60


def test_options_survive_the_manifest_and_decide_the_identity() -> None:
    """A manifest record gives the options back; other options have another hash."""
    options = NgramOptions(bits=18)
    assert ngram_options(ngram_spec(options)) == options
    assert options.sha256 != NgramOptions().sha256 == ENCODER.sha256


@pytest.mark.parametrize(
    "bad", [{"bits": 4}, {"word_orders": 0, "longest": 0}, {"max_characters": 0}, {"shortest": 0}]
)
def test_impossible_options_are_refused(bad: dict[str, int]) -> None:
    """Options without n-grams or beyond the hash are FamilyErrors."""
    with pytest.raises(FamilyError):
        NgramOptions(**bad)
