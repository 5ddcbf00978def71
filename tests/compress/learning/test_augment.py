"""Altered copies are what they say, differ from every text, and repeat themselves under one seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.learning.augment import altered_copies, similar_words
from compress.recipes.learning_parts import Augmentation

TEXTS = ("book me a table", "what is the weather today", "play a song", "go")


@settings(max_examples=30)
@given(seed=st.integers(0, 99), drop=st.floats(0, 1), swap=st.floats(0, 1), splice=st.floats(0, 1))
def test_copies_are_new_and_made_of_the_words_there_are(
    seed: int, drop: float, swap: float, splice: float
) -> None:
    """No copy is empty, a source or another copy, and none has a word that no source has."""
    chances = Augmentation(copies=3, drop=drop, swap=swap, splice=splice)
    copies = altered_copies(TEXTS, chances, seed=seed)
    assert copies == altered_copies(TEXTS, chances, seed=seed)
    assert len(copies) == len(set(copies)) <= 3 * len(TEXTS)
    assert not set(copies) & set(TEXTS)
    words = {word for text in TEXTS for word in text.split()}
    assert all(copy and set(copy.split()) <= words for copy in copies)


def test_without_any_chance_there_are_no_copies() -> None:
    """A text that nothing was done to is no copy."""
    assert altered_copies(TEXTS, Augmentation(drop=0, swap=0, splice=0), seed=0) == ()


def test_no_copy_is_a_text_that_is_held_out() -> None:
    """A text less one word is no copy where that is a held-out text, in whatever case and white space."""
    chances = Augmentation(copies=50, drop=0.4, swap=0, splice=0)
    for held_out in ("play song", " Play\tSONG "):
        copies = altered_copies(["play a song"], chances, seed=0, held_out=[held_out])
        assert "a song" in copies
        assert "play song" not in copies
    assert "play song" in altered_copies(["play a song"], chances, seed=0)
    assert altered_copies(["Play", "play a"], Augmentation(copies=9, drop=1, splice=0), seed=0) == ("a",)


def test_each_alteration_by_itself() -> None:
    """Dropping all leaves one word, swapping moves the first word last, replacing takes the neighbours."""
    dropped = altered_copies(TEXTS[:1], Augmentation(drop=1, swap=0, splice=0), seed=0)
    assert len(dropped[0].split()) == 1
    assert altered_copies(TEXTS[:1], Augmentation(drop=0, swap=1, splice=0), seed=0) == ("me a table book",)
    replace = Augmentation(drop=0, swap=0, splice=0, replace=1)
    neighbours = {"book": ("reserve",), "table": ("desk",)}
    assert altered_copies(["Book me a table"], replace, seed=0, neighbours=neighbours) == (
        "reserve me a desk",
    )
    spliced = altered_copies(TEXTS, Augmentation(copies=9, drop=0, swap=0, splice=1), seed=0)
    starts = {text.split()[0] for text in TEXTS}
    assert all(copy.split()[0] in starts for copy in spliced)
    assert any(copy.startswith("book") and copy.endswith("today") for copy in spliced)


def test_similar_words_are_whole_and_close() -> None:
    """Neighbours are by cosine, never the word itself, a piece of a word, or a far word."""
    table = np.array([[1, 0], [0.9, 0.1], [1, 0.01], [0, 1], [2, 0]], dtype=np.float32)
    vocabulary = {"car": 0, "truck": 1, "##car": 2, "moon": 3, "auto": 4}
    found = similar_words(["The car is here", "moon"], table, vocabulary)
    assert found == {"car": ("auto", "truck")}


def test_marked_pieces_are_the_whole_words() -> None:
    """Where the tokenizer marks the start of words, pieces without the mark are not words."""
    table = np.array([[1, 0], [1, 0.1], [1, 0.2]], dtype=np.float32)
    pairs = [["▁car", -1.0], ["auto", -2.0], ["▁truck", -3.0]]
    assert similar_words(["car"], table, pairs) == {"car": ("truck",)}
