"""Probabilities of logits: one softmax wherever answers are made, tuned on or compared. No scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return probabilities [N, C] of logits [N, C] divided by `temperature`, computed in float64."""
    scaled: NDArray[np.float64] = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled
