"""Predictions of the held-out texts, made through the serving runtime, in the serving regime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contract.predictions import VariantPredictions
from router.scores import basic_score
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


def batched_agreement(
    loaded: LoadedVariant, texts: Sequence[str], *, batch: int = 8, seed: int = 0
) -> tuple[float, float]:
    """Return how little batchmates change: the share of equal answers, and the largest logit movement.

    Each text is answered alone and in a random batch, through the serving runtime. The first figure is
    below 1 where batchmates change answers: then the variant must be served singly.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    alone = np.concatenate([loaded.logits([texts[i]]) for i in order])
    among = np.concatenate(
        [
            loaded.logits([texts[i] for i in order[start : start + batch]])
            for start in range(0, len(order), batch)
        ]
    )
    same = alone.argmax(axis=1) == among.argmax(axis=1)
    return float(same.mean()), float(np.abs(alone - among).max())
