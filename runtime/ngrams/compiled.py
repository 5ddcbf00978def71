"""The compiled part: from texts to logits in one call, where a compiler was there when this was installed.

It gives numpy's answers bit for bit, so nothing but time depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.api import Logits

try:
    from runtime.ngrams._scoring import Scorer, hash_buckets

    COMPILED = True
except ImportError:
    COMPILED = False
    Scorer = hash_buckets = None  # type: ignore[assignment,misc]

__all__ = ["COMPILED", "CompiledModel", "Scorer", "hash_buckets"]


class CompiledModel:
    """A model over hashed n-grams from text to logits. Threads may share it.

    Args:
        scorer: the compiled model.
        classes: C.
    """

    __slots__ = ("_classes", "_write")

    def __init__(self, scorer: Scorer, classes: int) -> None:
        self._write = scorer.logits
        self._classes = classes

    def __call__(self, texts: Sequence[str]) -> Logits:
        """Return float32 logits [N, C] of N texts."""
        out = np.empty((len(texts), self._classes), dtype=np.float32)
        self._write(texts, out)
        return out
