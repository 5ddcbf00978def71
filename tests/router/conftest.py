"""A small world of two or three variants with known behaviour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from contract.costs import Cost
from contract.predictions import Predictions, VariantPredictions

World = Callable[..., Predictions]


def make_world(
    n: int = 2000,
    *,
    seed: int = 0,
    classes: int = 4,
    skills: tuple[float, ...] = (0.7, 0.85, 0.95),
    logits: bool = False,
) -> Predictions:
    """Return n labelled rows seen by three variants whose confidence tells how likely they are right."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    hardness = rng.random(n)
    names = ("cheap", "middle", "large")[: len(skills)]
    variants = {}
    for name, skill in zip(names, skills, strict=True):
        p_right = np.clip(1.0 - (1.0 - skill) * 2 * hardness, 0.02, 0.995)
        right = rng.random(n) < p_right
        wrong = (label + rng.integers(1, classes, n)) % classes
        prediction = np.where(right, label, wrong)
        confidence = np.clip(p_right + rng.normal(0, 0.03, n), 1 / classes + 0.01, 0.999)
        table = None
        if logits:
            rest = np.log((1 - confidence) / (classes - 1))
            raw = np.repeat(rest[:, None], classes, axis=1) + rng.normal(0, 0.05, (n, classes))
            raw[np.arange(n), prediction] = np.log(confidence)
            table = (2.0 * raw).astype(np.float32)
            prediction = table.argmax(axis=1)
        variants[name] = VariantPredictions(prediction.astype(np.int64), confidence, table)
    return Predictions(tuple("abcdefghij"[:classes]), label.astype(np.int64), variants)


@pytest.fixture
def world() -> World:
    """Return the maker of small worlds."""
    return make_world


@pytest.fixture
def costs() -> dict[str, Cost]:
    """Return costs that rise tenfold with each size."""
    return {
        "cheap": Cost(1.0, 1.0, 0.01),
        "middle": Cost(4.0, 3.0, 0.05),
        "large": Cost(10.0, 9.0, 0.2),
    }
