"""Encoder over a `tokenizer.json`: token ids and attention mask, padded to the longest text of the call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import EnvironmentProblem, FamilyError
from contract.family import Artifact, EncoderSpec
from contract.files import sha256_of_bytes, sha256_of_json
from runtime.api import EXAMPLE_TEXT, Encoded
from runtime.word_cache import TOKEN_BYTES, word_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPES = "token_type_ids"

# A text is first cut to max_length tokens' worth of these. White space and overlong words can fill that
# without filling max_length tokens; then the cut grows, so that what is cut off never matters.
_CHARACTERS_PER_TOKEN = 100
_GROWTH = 4

_INT64 = np.dtype(np.int64)


def wordpiece_sha256(tokenizer_sha256: str, max_length: int, *, token_types: bool = False) -> str:
    """Return the identity of an encoding: the tokenizer's content and the options."""
    told = {"encoder": "wordpiece", "revision": 1, "tokenizer": tokenizer_sha256, "max_length": max_length}
    return sha256_of_json({**told, "token_types": True} if token_types else told)


def wordpiece_spec(tokenizer: Artifact, max_length: int, *, token_types: bool = False) -> EncoderSpec:
    """Return the manifest record of an encoding with a tokenizer file of the family."""
    return EncoderSpec(
        kind="wordpiece",
        artifact=tokenizer,
        max_length=max_length,
        parameters={"token_types": True} if token_types else {},
        sha256=wordpiece_sha256(tokenizer.sha256, max_length, token_types=token_types),
    )


class WordPieceEncoder:
    """Turns texts into `input_ids` and `attention_mask`, both int64 [N, longest].

    Each call runs on one thread; calls from several threads run side by side. Plain texts are looked up word
    by word where the tokenizer allows it (`runtime.word_cache`), with the tokenizer's own answer. The lengths
    and the mask of a single text are shared between calls and cannot be written to.

    Args:
        tokenizer_json: content of the file.
        max_length: tokens kept of each text, special tokens included.
        token_types: also give TOKEN_TYPES, int64 [N, longest], the segment that the tokenizer puts each
            token in; without, all are in segment 0.

    Raises:
        EnvironmentProblem: when the `tokenizers` library is missing.
        FamilyError: when the content is not a tokenizer.
    """

    def __init__(self, tokenizer_json: bytes, *, max_length: int, token_types: bool = False) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        try:
            from tokenizers import Tokenizer
        except ImportError as problem:
            raise EnvironmentProblem(
                f"the tokenizers library does not load: {problem}", hint="pip install tokenizers"
            ) from None
        try:
            self._tokenizer = Tokenizer.from_buffer(tokenizer_json)
        except Exception as problem:  # noqa: BLE001 (the library raises bare Exception)
            raise FamilyError(f"not a tokenizer.json: {problem}") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        pad = self._tokenizer.token_to_id("[PAD]")
        self._pad = 0 if pad is None else int(pad)
        self._max_length = max_length
        self._characters = max_length * _CHARACTERS_PER_TOKEN
        words = word_tokens(self._tokenizer)
        self._room = max_length if words is None else max_length - words.specials
        # Where special tokens leave no room for others, the tokenizer has its own rules.
        self._words = words if self._room > 0 else None
        self._sha256 = wordpiece_sha256(sha256_of_bytes(tokenizer_json), max_length, token_types=token_types)
        self._types = _Types(self._tokenizer) if token_types else None

    example = EXAMPLE_TEXT

    @property
    def sha256(self) -> str:
        """Identity of the encoding."""
        return self._sha256

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode N >= 1 texts; too long ones are cut, an empty one has special tokens alone, or padding."""
        if len(texts) == 1:
            found = self._looked_up(texts[0])
            row = self._asked(texts)[0] if found is None else found
            n = len(row) // TOKEN_BYTES
            lengths, mask = _of_one(n)
            arrays: dict[str, NDArray[Any]] = {INPUT_IDS: np.ndarray((1, n), _INT64, row)}
            arrays[ATTENTION_MASK] = mask
            if self._types is not None:
                arrays[TOKEN_TYPES] = self._types.of(arrays[INPUT_IDS], lengths)
            return Encoded(arrays, lengths, self._sha256)
        rows = self._rows(texts)
        lengths = np.array([len(row) // TOKEN_BYTES for row in rows], dtype=np.int64)
        longest = int(lengths.max(initial=1))
        ids = np.full((len(rows), longest), self._pad, dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row) // TOKEN_BYTES] = np.frombuffer(row, _INT64)
        arrays = {INPUT_IDS: ids, ATTENTION_MASK: (np.arange(longest) < lengths[:, None]).astype(np.int64)}
        if self._types is not None:
            arrays[TOKEN_TYPES] = self._types.of(ids, lengths)
        return Encoded(arrays, lengths, self._sha256)

    def _looked_up(self, text: str) -> bytearray | None:
        if self._words is None or len(text) > self._characters:
            return None
        return self._words.find(text, self._room) or None

    def _rows(self, texts: Sequence[str]) -> list[bytearray]:
        """Return the int64 token ids of each text as bytes; what is not looked up is asked for at once."""
        found = [self._looked_up(text) for text in texts]
        asked = iter(self._asked([text for text, row in zip(texts, found, strict=True) if row is None]))
        return [next(asked) if row is None else row for row in found]

    def _asked(self, texts: Sequence[str]) -> list[bytearray]:
        """Return the tokenizer's own int64 token ids of each text as bytes."""
        cut = self._characters
        rows = self._tokens([text[:cut] for text in texts])
        for i, text in enumerate(texts):
            if len(text) > cut and len(rows[i]) < self._max_length:
                rows[i] = self._tokens_of_long(text)
        # Without special tokens an empty text has no token at all, and no graph answers nothing.
        return [bytearray(np.array(row or [self._pad], dtype=_INT64).tobytes()) for row in rows]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        try:
            found = self._tokenizer.encode_batch_fast(texts)
        except (TypeError, UnicodeEncodeError):
            # Half a surrogate pair is a legal str and not legal UTF-8.
            found = self._tokenizer.encode_batch_fast(
                [text.encode("utf-8", "replace").decode() for text in texts]
            )
        return [item.ids for item in found]

    def _tokens_of_long(self, text: str) -> list[int]:
        """Return the tokens of a text whose usual cut holds fewer than `max_length` of them."""
        cut = self._characters
        while True:
            cut *= _GROWTH
            ids = self._tokens([text[:cut]])[0]
            if len(ids) >= self._max_length or cut >= len(text):
                return ids


class _Types:
    """Segments of tokens: each special token that stands around a text may be in one of its own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        empty = tokenizer.encode("")
        self._segments = dict(zip(empty.ids, empty.type_ids, strict=True))
        whole = tokenizer.encode("a")
        inner = [kind for n, kind in zip(whole.ids, whole.type_ids, strict=True) if n not in self._segments]
        self._text = inner[0] if inner else 0
        self._around = len(empty.ids)
        self._before = len([n for n in whole.ids[:1] if n in self._segments])

    def of(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 segments of ids [N, T]."""
        found = np.full_like(ids, self._text)
        for row, length in enumerate(lengths):
            for place in range(length) if length <= self._around else self._ends(int(length)):
                found[row, place] = self._segments.get(int(ids[row, place]), self._text)
        return found

    def _ends(self, length: int) -> list[int]:
        return [*range(self._before), *range(length - self._around + self._before, length)]


@lru_cache(maxsize=1024)
def _of_one(length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lengths [1] and the mask [1, length] of a single text, the same arrays at each call."""
    lengths, mask = np.array([length], dtype=_INT64), np.ones((1, length), dtype=_INT64)
    for shared in (lengths, mask):
        shared.setflags(write=False)
    return lengths, mask


def read_wordpiece(path: Path, *, max_length: int, token_types: bool = False) -> WordPieceEncoder:
    """Return the encoder of a `tokenizer.json` file. Raises FamilyError, EnvironmentProblem."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise FamilyError(f"the tokenizer cannot be read: {problem}", where=path) from None
    return WordPieceEncoder(content, max_length=max_length, token_types=token_types)
