"""Encoder of the linear stage: hashed word and character n-grams of a text, without a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from contract.errors import FamilyError
from contract.family import EncoderSpec
from contract.files import sha256_of_json
from runtime.api import EXAMPLE_TEXT, Encoded
from runtime.ngrams.compiled import COMPILED, hash_buckets

BUCKETS = "buckets"
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xD6E8FEB86659FD93)
_WORD_SALT = np.uint64(0xA0761D6478BD642F)
_HALF = np.uint64(32)
_SPACE = 0x20
_KEPT = 256
_SEPARATORS = bytes(
    code if code >= 0x80 or chr(code).isalnum() or code == ord("'") else _SPACE for code in range(256)
)


@dataclass(frozen=True)
class NgramOptions:
    """What decides the n-grams of a text, and so the identity of the encoding.

    Attributes:
        word_orders: longest run of words; 2 means single words and pairs. 0: no words.
        shortest, longest: character n-grams of these sizes, across word borders. longest 0: none.
        bits: an n-gram is hashed into 2**bits buckets.
        max_characters: what is kept of each text.
    """

    word_orders: int = 2
    shortest: int = 3
    longest: int = 5
    bits: int = 20
    max_characters: int = 4096

    def __post_init__(self) -> None:
        if not (0 <= self.word_orders <= 8 and 0 <= self.longest <= 16 and self.shortest >= 1):
            raise FamilyError("n-gram orders must be 0 to 8 words and 1 to 16 characters")
        if not (8 <= self.bits <= 28 and 1 <= self.max_characters <= 1 << 20):
            raise FamilyError("n-grams need 8 to 28 bits and 1 to 2**20 characters")
        if self.word_orders == 0 and self.longest < self.shortest:
            raise FamilyError("the n-gram options select no n-grams at all")

    @property
    def sha256(self) -> str:
        """Identity of the encoding."""
        return sha256_of_json({"encoder": "ngrams", "revision": 1, **asdict(self)})

    @property
    def numbers(self) -> tuple[int, int, int, int, int]:
        """The options as compiled code takes them."""
        return self.word_orders, self.shortest, self.longest, self.bits, self.max_characters


def ngram_spec(options: NgramOptions) -> EncoderSpec:
    """Return the manifest record of an n-gram encoding."""
    return EncoderSpec(kind="ngrams", parameters=asdict(options), sha256=options.sha256)


def ngram_options(spec: EncoderSpec) -> NgramOptions:
    """Return the options that a manifest record holds.

    Raises:
        FamilyError: for unknown or impossible options.
    """
    try:
        return NgramOptions(**{key: int(value) for key, value in spec.parameters.items()})
    except (TypeError, ValueError) as problem:
        raise FamilyError(f"n-gram options: {problem}") from None


class NgramEncoder:
    """Turns texts into bucket numbers of their n-grams.

    `Encoded.arrays["buckets"]` is [N] of object: per text an int64 array of buckets, one per n-gram, with
    repeats. Texts are lower-cased; every ASCII character but letters, digits and the apostrophe parts
    words. A window [s, e) of bytes b has the polynomial hash sum(b[j] * B**(j - s)) modulo 2**64, which
    prefix sums give numpy for all windows at once (Karp and Rabin 1987): no n-gram is touched by Python code.
    """

    def __init__(self, options: NgramOptions) -> None:
        self.options = options
        self._sha256 = options.sha256
        self._numbers = options.numbers
        self._shift = np.uint64(64 - options.bits)
        self._tables = _tables_of(1024)
        self._characters = _Windows(options.shortest, options.longest)
        self._words = _Windows(1, options.word_orders)

    example = EXAMPLE_TEXT

    @property
    def sha256(self) -> str:
        """Identity of the encoding."""
        return self._sha256

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Hash the n-grams of N >= 1 texts; an empty text has none."""
        rows = np.empty(len(texts), dtype=object)
        for i, text in enumerate(texts):
            rows[i] = self.buckets(text)
        lengths = np.array([row.size for row in rows], dtype=np.int64)
        return Encoded({BUCKETS: rows}, lengths, self._sha256)

    def buckets(self, text: str) -> NDArray[np.int64]:
        """Return the bucket of every n-gram of one text, characters first, then words."""
        if not COMPILED:
            return self.buckets_in_numpy(text)
        found = hash_buckets(text, self._numbers)
        return np.frombuffer(found, dtype=np.int64) if found else np.empty(0, dtype=np.int64)

    def buckets_in_numpy(self, text: str) -> NDArray[np.int64]:
        """Return the same without compiled code."""
        lowered = text[: self.options.max_characters].lower().encode("utf-8", "replace")
        words = lowered.translate(_SEPARATORS).split()
        if not words:
            return np.empty(0, dtype=np.int64)
        # The NUL makes the sums start with that of the empty prefix.
        data = np.frombuffer(b"\0 %b " % b" ".join(words), dtype=np.uint8)
        powers, inverses = self._tables
        if data.size > powers.size:
            powers, inverses = self._tables = _tables_of(2 * data.size)
        prefix = np.add.accumulate(data * powers[: data.size])
        starts, ends = self._characters.of(data.size - 1)
        characters = starts.size
        spaces = (data[1:] == _SPACE).nonzero()[0]
        first, last = self._words.of(len(words))
        starts = np.concatenate((starts, spaces[first]))
        ends = np.concatenate((ends, spaces[last]))
        found = prefix[ends]
        found -= prefix[starts]
        found *= inverses[starts]
        found[characters:] += _WORD_SALT
        found ^= found >> _HALF
        found *= _MIX
        found >>= self._shift
        return found.view(np.int64)


class _Windows:
    """The places of all windows of some sizes over n items; kept for small n, where making them costs most.

    Threads may share it: two that miss at once store equal arrays.
    """

    def __init__(self, shortest: int, longest: int) -> None:
        self._sizes = range(shortest, longest + 1)
        self._kept: dict[int, tuple[Places, Places]] = {}

    def of(self, n: int) -> tuple[Places, Places]:
        """Return starts and ends (exclusive) of the windows, by size and then by start."""
        kept = self._kept.get(n)
        if kept is not None:
            return kept
        starts = [np.arange(n + 1 - size) for size in self._sizes if size <= n]
        ends = [np.arange(size, n + 1) for size in self._sizes if size <= n]
        none = np.empty(0, dtype=np.int64)
        places = np.concatenate([none, *starts]), np.concatenate([none, *ends])
        if n <= _KEPT:
            self._kept[n] = places
        return places


def _tables_of(size: int) -> tuple[Hashes, Hashes]:
    """Return B**(i - 1) and B**-i for i = 0 to size - 1."""
    inverse = pow(_BASE, -1, 1 << 64)
    powers, inverses = (np.full(size, base, dtype=np.uint64) for base in (_BASE, inverse))
    powers[0], inverses[0] = inverse, 1
    return np.cumprod(powers), np.cumprod(inverses)
