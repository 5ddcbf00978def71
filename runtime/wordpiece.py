"""Encoder over a `tokenizer.json`: token ids and attention mask, padded to the longest text of the call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contract.errors import EnvironmentProblem, FamilyError
from contract.family import Artifact, EncoderSpec
from contract.files import sha256_of_bytes, sha256_of_json
from runtime.api import EXAMPLE_TEXT, Encoded

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"

# A text is first cut to max_length tokens' worth of these. White space and overlong words can fill that
# without filling max_length tokens; then the cut grows, so that what is cut off never matters.
_CHARACTERS_PER_TOKEN = 100
_GROWTH = 4


def wordpiece_sha256(tokenizer_sha256: str, max_length: int) -> str:
    """Return the identity of an encoding: the tokenizer's content and the options."""
    return sha256_of_json(
        {"encoder": "wordpiece", "revision": 1, "tokenizer": tokenizer_sha256, "max_length": max_length}
    )


def wordpiece_spec(tokenizer: Artifact, max_length: int) -> EncoderSpec:
    """Return the manifest record of an encoding with a tokenizer file of the family."""
    return EncoderSpec(
        kind="wordpiece",
        artifact=tokenizer,
        max_length=max_length,
        sha256=wordpiece_sha256(tokenizer.sha256, max_length),
    )


class WordPieceEncoder:
    """Turns texts into `input_ids` and `attention_mask`, both int64 [N, longest].

    Each call runs on one thread; calls from several threads run side by side.

    Args:
        tokenizer_json: content of the file.
        max_length: tokens kept of each text, special tokens included.

    Raises:
        EnvironmentProblem: when the `tokenizers` library is missing.
        FamilyError: when the content is not a tokenizer.
    """

    def __init__(self, tokenizer_json: bytes, *, max_length: int) -> None:
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
        self._sha256 = wordpiece_sha256(sha256_of_bytes(tokenizer_json), max_length)

    example = EXAMPLE_TEXT

    @property
    def sha256(self) -> str:
        """Identity of the encoding."""
        return self._sha256

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode N >= 1 texts; too long ones are cut, an empty one has the special tokens alone."""
        cut = self._characters
        rows = self._tokens([text[:cut] for text in texts])
        for i, text in enumerate(texts):
            if len(text) > cut and len(rows[i]) < self._max_length:
                rows[i] = self._tokens_of_long(text)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        longest = int(lengths.max(initial=1))
        if len(rows) == 1:
            ids = np.array(rows, dtype=np.int64).reshape(1, -1)
            return Encoded({INPUT_IDS: ids, ATTENTION_MASK: np.ones_like(ids)}, lengths, self._sha256)
        ids = np.full((len(rows), longest), self._pad, dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
        return Encoded({INPUT_IDS: ids, ATTENTION_MASK: mask}, lengths, self._sha256)

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


def read_wordpiece(path: Path, *, max_length: int) -> WordPieceEncoder:
    """Return the encoder of a `tokenizer.json` file. Raises FamilyError, EnvironmentProblem."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise FamilyError(f"the tokenizer cannot be read: {problem}", where=path) from None
    return WordPieceEncoder(content, max_length=max_length)
