"""The seam of the project: text in, logits out. All that serves or measures a variant goes through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]

EXAMPLE_TEXT = "a text of usual length, to see how long one takes"


@dataclass(slots=True)
class Encoded:
    """N encoded texts.

    Attributes:
        arrays: named arrays whose first axis is N; what they hold is between an encoder and its runtimes.
        lengths: [N] units (tokens, n-grams) of each text, padding not counted.
        encoder: sha256 of the encoder that made it; a runtime refuses another's.
    """

    arrays: dict[str, NDArray[np.generic]]
    lengths: NDArray[np.int64]
    encoder: str

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: slice | Sequence[int]) -> Encoded:
        """Return some of the texts, in the order given."""
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        return Encoded(arrays, self.lengths[rows], self.encoder)


def stack(parts: Sequence[Encoded]) -> Encoded:
    """Return the texts of several encodings of one encoder as one, shorter rows filled up with zeros.

    A zero in an attention mask is padding, so what the other arrays hold there does not matter.
    """
    if len(parts) == 1:
        return parts[0]
    arrays = {name: _stacked([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    return Encoded(arrays, np.concatenate([part.lengths for part in parts]), parts[0].encoder)


def _stacked(arrays: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    if arrays[0].ndim != 2:
        return np.concatenate(arrays)
    longest = max(array.shape[1] for array in arrays)
    whole = np.zeros((sum(len(array) for array in arrays), longest), dtype=arrays[0].dtype)
    start = 0
    for array in arrays:
        whole[start : start + len(array), : array.shape[1]] = array
        start += len(array)
    return whole


class Encoder(Protocol):
    """Turns texts into arrays. Thread-safe."""

    @property
    def sha256(self) -> str:
        """Identity of the encoding: equal hashes mean interchangeable output."""
        ...

    @property
    def example(self) -> str:
        """A text of usual size that it takes, to warm up and to see how long one takes."""
        ...

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode N >= 1 texts; too long ones are cut, empty ones are legal."""
        ...


class Runtime(Protocol):
    """Runs one artifact. `logits` may be called from several threads."""

    def logits(self, encoded: Encoded) -> Logits:
        """Return float32 logits [N, C].

        The answer for a text does not depend on its batchmates: where a runtime's arithmetic would
        make it so (dynamic INT8), it runs the texts one at a time.
        """
        ...

    def close(self) -> None:
        """Free what the runtime holds."""
        ...


@dataclass(frozen=True)
class LoadedVariant:
    """A variant ready to answer: its encoder, its runtime, and what the manifest says of its answers.

    `direct`, where there is one, gives the answers of both in one call.
    """

    name: str
    artifact_sha256: str
    labels: tuple[str, ...]
    temperature: float
    encoder: Encoder
    runtime: Runtime
    direct: Callable[[Sequence[str]], Logits] | None = None

    def logits(self, texts: Sequence[str]) -> Logits:
        """Return float32 logits [N, C] of N texts."""
        if self.direct is not None:
            return self.direct(texts)
        return self.runtime.logits(self.encoder.encode(texts))
