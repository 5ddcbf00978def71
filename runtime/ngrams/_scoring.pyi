"""Types of the compiled part; _scoring.c has the code."""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from runtime.api import Logits

_Options = tuple[int, int, int, int, int]

def hash_buckets(text: str, options: _Options, /) -> bytearray: ...

@final
class Scorer:
    @classmethod
    def linear(
        cls,
        options: _Options,
        rows: int,
        classes: int,
        buckets: NDArray[np.uint32],
        idf: NDArray[np.float32],
        logs: NDArray[np.float32],
        bias: NDArray[np.float32],
        weights: NDArray[np.float32],
        /,
    ) -> Scorer: ...
    @classmethod
    def deep(
        cls,
        options: _Options,
        rows: int,
        classes: int,
        hidden: int,
        buckets: NDArray[np.uint32],
        idf: NDArray[np.float32],
        logs: NDArray[np.float32],
        bias: NDArray[np.float32],
        vectors: NDArray[np.int8],
        scales: NDArray[np.float32],
        hidden_bias: NDArray[np.float32],
        dense: NDArray[np.int8],
        dense_scales: NDArray[np.float32],
        /,
    ) -> Scorer: ...
    def logits(self, texts: Sequence[str], out: Logits, /) -> None: ...
