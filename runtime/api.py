"""The seam of the project: text in, logits out. All that serves or measures a variant goes through here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


@dataclass(frozen=True)
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


class Encoder(Protocol):
    """Turns texts into arrays. Thread-safe."""

    @property
    def sha256(self) -> str:
        """Identity of the encoding: equal hashes mean interchangeable output."""
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
    """A variant ready to answer: its encoder, its runtime, and what the manifest says of its answers."""

    name: str
    artifact_sha256: str
    labels: tuple[str, ...]
    temperature: float
    encoder: Encoder
    runtime: Runtime

    def logits(self, texts: Sequence[str]) -> Logits:
        """Return float32 logits [N, C] of N texts."""
        return self.runtime.logits(self.encoder.encode(texts))
