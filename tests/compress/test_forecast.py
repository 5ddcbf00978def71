"""The trial of a linear model on collected answers."""

from __future__ import annotations

import numpy as np
import pytest

from compress.forecast import FEWEST, forecast
from contract.errors import DataError

LABELS = ("card", "transfer", "weather")
WORDS = {
    "card": "lost stolen card pin",
    "transfer": "send money bank account",
    "weather": "rain sun cold warm",
}


def drawn(n: int, noise: float, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts of a topic's words, and answers of which a share is by chance."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    texts = [f"{' '.join(rng.permutation(WORDS[LABELS[t]].split()))} {i}" for i, t in enumerate(truth)]
    answers = np.where(rng.random(n) < noise, rng.integers(0, 3, n), truth)
    probabilities = np.full((n, 3), 0.05, dtype=np.float32)
    probabilities[np.arange(n), answers] = 0.9
    return texts, answers, probabilities


def test_what_a_linear_model_can_learn_is_certified_and_counted() -> None:
    """On topics with words of their own nearly everything can be answered here."""
    texts, answers, probabilities = drawn(800, noise=0.0)
    found = forecast(
        texts, answers, probabilities, LABELS, max_disagreement=0.05, confidence=0.9, usd_per_1k=0.03
    )

    assert found.certified
    assert found.answered / found.n > 0.9
    assert found.disagreement <= 0.05


def test_answers_by_chance_are_not_certified() -> None:
    """Where nothing can be learnt nothing is promised, with unknown probabilities too."""
    texts, answers, _ = drawn(400, noise=1.0)
    found = forecast(
        texts, answers, np.full((400, 3), np.nan, dtype=np.float32), LABELS,
        max_disagreement=0.05, confidence=0.9, usd_per_1k=0.03,
    )  # fmt: skip

    assert not found.certified
    assert found.answered == 0


def test_a_handful_of_texts_is_refused() -> None:
    """Too few texts to part are an error that says how many it takes."""
    texts, answers, probabilities = drawn(FEWEST - 1, noise=0.0)
    with pytest.raises(DataError, match=str(FEWEST)):
        forecast(texts, answers, probabilities, LABELS, max_disagreement=0.1, confidence=0.9, usd_per_1k=1)
