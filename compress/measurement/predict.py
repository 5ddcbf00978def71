"""Predictions of the held-out texts, made through the serving runtime, in the serving regime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contract.predictions import VariantPredictions
from router.decide.scores import basic_score
from runtime.api import LoadedVariant, Logits

_TEXTS_PER_CALL = 256


def predict_logits(loaded: LoadedVariant, texts: Sequence[str]) -> Logits:
    """Return float32 logits [N, C] of N >= 1 texts, in calls of bounded size."""
    parts = [
        loaded.logits(texts[start : start + _TEXTS_PER_CALL])
        for start in range(0, len(texts), _TEXTS_PER_CALL)
    ]
    return np.concatenate(parts)


def answers_of(logits: Logits, temperature: float) -> VariantPredictions:
    """Return the answers that logits [N, C] are: prediction, confidence at that temperature, the logits."""
    return VariantPredictions(
        prediction=logits.argmax(axis=1).astype(np.int64),
        confidence=basic_score("max_probability", logits, temperature),
        logits=logits,
    )
