"""Altered copies of texts: words left out, changed in place, exchanged for similar ones, or spliced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compress.recipes.learning_parts import Augmentation

Neighbours = Mapping[str, Sequence[str]]

MOST_SIMILAR = 8
LEAST_SIMILAR = 0.4
WORD_MARKS = ("Ġ", "▁")


def altered_copies(
    texts: Sequence[str],
    settings: Augmentation,
    *,
    seed: int,
    neighbours: Neighbours | None = None,
    held_out: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return distinct altered copies of texts, none of which is a text itself, or one that is held out.

    Texts that differ in case or white space alone are one text here.

    A copy keeps the order of its source but for neighbouring words that swap, and at least one word. A
    spliced copy begins as one text and goes on as the end of another, each cut at a random word. Copies
    have no label of their own: the teacher says what they are.

    Args:
        texts: the sources.
        settings: how many copies of each, and the chance of every alteration.
        seed: of all chances.
        neighbours: lower-case words to similar words, drawn from where a word is to be replaced.
        held_out: texts that nothing may be learnt from.
    """
    rng = np.random.default_rng(seed)
    sources = [text.split() for text in texts]
    known = {" ".join(text.casefold().split()) for text in (*texts, *held_out)}
    found: dict[str, None] = {}
    for _ in range(settings.copies):
        for words in sources:
            copy = " ".join(_altered(words, sources, settings, rng, neighbours or {}))
            if copy and copy.casefold() not in known:
                found[copy] = None
    return tuple(found)


def _altered(
    words: list[str],
    sources: list[list[str]],
    settings: Augmentation,
    rng: np.random.Generator,
    neighbours: Neighbours,
) -> list[str]:
    if rng.random() < settings.splice:
        other = sources[rng.integers(len(sources))]
        words = words[: rng.integers(1, len(words) + 1)] + other[rng.integers(len(other)) :]
    chances = rng.random((3, len(words)))
    kept = [place for place in range(len(words)) if chances[0, place] >= settings.drop]
    copy = [words[place] for place in kept or [int(rng.integers(len(words)))]]
    for place in range(len(copy)):
        similar = neighbours.get(copy[place].lower(), ()) if chances[1, place] < settings.replace else ()
        if similar:
            copy[place] = similar[int(rng.integers(len(similar)))]
    for place in range(len(copy) - 1):
        if chances[2, place] < settings.swap:
            copy[place], copy[place + 1] = copy[place + 1], copy[place]
    return copy


def similar_words(
    texts: Sequence[str],
    table: NDArray[np.float32],
    vocabulary: Mapping[str, int] | Sequence[Sequence[object]],
) -> dict[str, tuple[str, ...]]:
    """Return for the words of texts, in lower case, the whole words that a network holds for similar.

    Similar are up to MOST_SIMILAR words whose rows of the word table have a cosine above LEAST_SIMILAR.
    A word that is not a piece of its own has none.

    Args:
        texts: whose words to look up.
        table: [V, H] rows of word pieces.
        vocabulary: of the tokenizer file: pieces to rows, or [piece, score] pairs in the order of the rows.
    """
    whole = _whole_words(vocabulary)
    names = [name for name, row in whole.items() if row < len(table)]
    rows = table[[whole[name] for name in names]]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    places = {name: place for place, name in enumerate(names)}
    used = sorted({word for text in texts for word in text.lower().split()} & places.keys())
    found = {}
    for word in used:
        closeness = rows @ rows[places[word]]
        closeness[places[word]] = -1
        best = np.argsort(-closeness, kind="stable")[:MOST_SIMILAR]
        similar = tuple(names[place] for place in best if closeness[place] > LEAST_SIMILAR)
        if similar:
            found[word] = similar
    return found


def _whole_words(vocabulary: Mapping[str, int] | Sequence[Sequence[object]]) -> dict[str, int]:
    """Return the rows of pieces that are a word: marked as the start of one where the tokenizer marks it."""
    if isinstance(vocabulary, Mapping):
        pieces = dict(vocabulary)
    else:
        pieces = {str(entry[0]): row for row, entry in enumerate(vocabulary)}
    marked = any(piece.startswith(WORD_MARKS) for piece in pieces)
    words = {
        piece.lstrip("".join(WORD_MARKS)): row
        for piece, row in pieces.items()
        if not marked or piece.startswith(WORD_MARKS)
    }
    return {word: row for word, row in words.items() if len(word) > 1 and word.isalpha()}
