"""Altered copies of texts: words left out, changed in place, exchanged for similar ones, or spliced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compress.parts import Augmentation

Neighbours = Mapping[str, Sequence[str]]


def altered_copies(
    texts: Sequence[str], settings: Augmentation, *, seed: int, neighbours: Neighbours | None = None
) -> tuple[str, ...]:
    """Return distinct altered copies of texts, none of which is a text itself.

    A copy keeps the order of its source but for neighbouring words that swap, and at least one word. A
    spliced copy begins as one text and goes on as the end of another, each cut at a random word. Copies
    have no label of their own: the teacher says what they are.

    Args:
        texts: the sources.
        settings: how many copies of each, and the chance of every alteration.
        seed: of all chances.
        neighbours: lower-case words to similar words, drawn from where a word is to be replaced.
    """
    rng = np.random.default_rng(seed)
    sources = [text.split() for text in texts]
    known = {" ".join(words) for words in sources}
    found: dict[str, None] = {}
    for _ in range(settings.copies):
        for words in sources:
            copy = " ".join(_altered(words, sources, settings, rng, neighbours or {}))
            if copy and copy not in known:
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
