"""Traffic whose mix can be set: usual texts, and a kind that a cheap variant seldom knows."""

from __future__ import annotations

import numpy as np

from contract.predictions import Predictions, VariantPredictions


def traffic(n: int, share: float, seed: int, *, classes: int = 4) -> Predictions:
    """Return n rows of which a share is of the label "other", which the cheap variant seldom knows.

    The scores of the cheap variant tell the two apart, though not for certain.
    """
    rng = np.random.default_rng(seed)
    strange = rng.random(n) < share
    label = np.where(strange, classes, rng.integers(0, classes, n))
    sure = np.where(strange, rng.beta(5, 3, n), rng.beta(9, 1.6, n))
    right = rng.random(n) < np.where(strange, 0.05, np.clip(sure + 0.08, 0, 1))
    said = np.where(right, label, (label + rng.integers(1, classes, n)) % classes)
    large = np.where(rng.random(n) < 0.99, label, (label + 1) % classes)
    variants = {
        "cheap": VariantPredictions(said.astype(np.int64), sure),
        "large": VariantPredictions(large.astype(np.int64), np.ones(n)),
    }
    return Predictions((*"abcd"[:classes], "other"), label.astype(np.int64), variants)
