"""Predictions of the held-out texts, made through the serving runtime, in the serving regime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.predictions import Predictions, VariantPredictions
from runtime.api import LoadedVariant, Logits

_TEXTS_PER_CALL = 256


def predict_variant(loaded: LoadedVariant, texts: Sequence[str]) -> VariantPredictions:
    """Return one variant's answers on N texts: prediction, confidence at its temperature, logits [N, C]."""
    logits = predict_logits(loaded, texts)
    return VariantPredictions(
        prediction=logits.argmax(axis=1).astype(np.int64),
        confidence=confidences(logits, loaded.temperature),
        logits=logits,
    )


def predict_logits(loaded: LoadedVariant, texts: Sequence[str]) -> Logits:
    """Return float32 logits [N, C] of N >= 1 texts, in calls of bounded size."""
    parts = [
        loaded.logits(texts[start : start + _TEXTS_PER_CALL])
        for start in range(0, len(texts), _TEXTS_PER_CALL)
    ]
    return np.concatenate(parts)


def confidences(logits: Logits, temperature: float) -> NDArray[np.float64]:
    """Return the largest softmax probability [N] of logits [N, C] divided by a temperature."""
    scaled = logits.astype(np.float64) / temperature
    highest = scaled.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = 1.0 / np.exp(scaled - highest).sum(axis=1)
    return found


def predict_family(
    variants: Mapping[str, LoadedVariant],
    texts: Sequence[str],
    label: NDArray[np.int64],
    split: Sequence[str],
    *,
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Predictions:
    """Return the answers of all variants on N texts as a predictions table.

    Args:
        variants: loaded, by name; all with one label set.
        texts: [N].
        label: [N] class indices.
        split: [N] of tune, certify, test.
        slices: name to mask [N].
    """
    labels = next(iter(variants.values())).labels
    return Predictions(
        labels=labels,
        label=label,
        variants={name: predict_variant(loaded, texts) for name, loaded in variants.items()},
        split=np.array(split, dtype=np.str_),
        slices=dict(slices or {}),
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
