"""Tokens of words seen before: the fast way through a BERT tokenizer, with the tokenizer's own answers."""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKEN_BYTES = 8

_PUNCTUATION = frozenset(string.punctuation)

# A text teaches some of its words only: one of nothing but new words then costs little more than the
# tokenizer's own work. A full store starts again: one that stayed full would be of no use for new traffic.
_MOST_LEARNT = 16
_MOST_WORDS = 1 << 16
_LONGEST_WORD = 32


class WordTokens(dict[str, bytes]):
    """Token ids of words seen before, as the bytes of an int64 array.

    A word is what stands between two spaces, punctuation and all. A tokenizer that this is made for (see
    `word_tokens`) splits there at the latest and normalises each character by itself. So a word goes through
    the tokenizer once, alone, and is looked up from then on. The values are bytes, as looking them up and
    joining them touches less memory than integers do: that counts when a model has just filled the caches.

    Safe in threads: two that learn one word store equal bytes.

    Args:
        tokenizer: truncates to no fewer tokens than are asked of `find`, and does not pad.
        marks: characters by which a text that may hold an added token is known.
        prefix, suffix: special tokens before and after the text's own.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, marks: frozenset[str], prefix: list[int], suffix: list[int]
    ) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._normalizer = tokenizer.normalizer
        self._marks = marks
        self._prefix = _bytes_of(prefix)
        self._suffix = _bytes_of(suffix)
        self.specials = len(prefix) + len(suffix)

    def find(self, text: str, room: int) -> bytearray | None:
        """Return the int64 token ids of a text as bytes, or None where the tokenizer must be asked.

        Args:
            text: any.
            room: tokens to keep of the text, special ones not counted.
        """
        words = text.split(" ")
        try:
            found = b"".join(map(self.__getitem__, words))
        except KeyError:
            self._learn(text, words)
            try:
                found = b"".join(map(self.__getitem__, words))
            except KeyError:
                return None
        return bytearray().join((self._prefix, found[: room * TOKEN_BYTES], self._suffix))

    def _learn(self, text: str, words: list[str]) -> None:
        """Keep the tokens of the first new words of a text, unless it may hold an added token."""
        new = [word for word in dict.fromkeys(words) if word not in self and len(word) <= _LONGEST_WORD]
        new = new[:_MOST_LEARNT]
        try:
            told = text + self._normalizer.normalize_str(" ".join(new))
            if not self._marks.isdisjoint(told):
                return
            encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            # Half a surrogate pair is a legal str and not legal UTF-8.
            return
        if len(self) + len(new) > _MOST_WORDS:
            self.clear()
        self.update((word, _bytes_of(found.ids)) for word, found in zip(new, encodings, strict=True))


def word_tokens(tokenizer: Tokenizer) -> WordTokens | None:
    """Return an empty store for a tokenizer, or None if a word's tokens may depend on its neighbours.

    It is made for BertNormalizer, BertPreTokenizer and WordPiece with fixed special tokens around the text.
    Added tokens are found across words, so each must have punctuation in it to be known by.
    """
    made_of: dict[str, Any] = json.loads(tokenizer.to_str())
    kinds = [(made_of[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    around = _around(made_of["post_processor"])
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or around is None:
        return None
    marks: set[str] = set()
    for token in made_of["added_tokens"]:
        # By its own options it is looked for in the text as written or as normalised.
        for form in (token["content"], tokenizer.normalizer.normalize_str(token["content"])):
            if not marks.isdisjoint(form):
                continue
            mark = next((character for character in form if character in _PUNCTUATION), None)
            if mark is None:
                return None
            marks.add(mark)
    return WordTokens(tokenizer, marks=frozenset(marks), prefix=around[0], suffix=around[1])


def _around(processor: dict[str, Any] | None) -> tuple[list[int], list[int]] | None:
    """Return the special ids before and after a text, or None where a post-processor does more than that."""
    if processor is None:
        return [], []
    if processor["type"] == "BertProcessing":
        return [processor["cls"][1]], [processor["sep"][1]]
    if processor["type"] != "TemplateProcessing":
        return None
    template = processor["single"]
    places = [i for i, piece in enumerate(template) if "Sequence" in piece]
    if len(places) != 1 or template[places[0]]["Sequence"]["id"] != "A":
        return None
    before, after = template[: places[0]], template[places[0] + 1 :]
    ids = {name: special["ids"] for name, special in processor["special_tokens"].items()}
    prefix = [n for piece in before for n in ids[piece["SpecialToken"]["id"]]]
    suffix = [n for piece in after for n in ids[piece["SpecialToken"]["id"]]]
    return prefix, suffix


def _bytes_of(ids: list[int]) -> bytes:
    return np.array(ids, dtype=np.int64).tobytes()
