"""Mixed precision by measured sensitivity: the matrix products that hurt most in INT8 stay FP32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.graphs.calibration import even_rows
from contract.errors import SluiceError

# Products that stay FP32 and texts [some rows] to logits [rows, C] of a graph quantized but for those.
Answers = Callable[[frozenset[str], NDArray[np.int64]], NDArray[np.float32]]

SCORED_TEXTS = 128


@dataclass(frozen=True)
class Mixture:
    """Which products stay FP32.

    Attributes:
        left_out: those that do, the most sensitive first.
        drop: accuracy of the FP32 graph minus that of the mixture.
        sensitivity: per product, the mean squared error of the logits when it alone is INT8.
    """

    left_out: tuple[str, ...]
    drop: float
    sensitivity: dict[str, float]


def sensitivities(
    answers: Answers, products: Sequence[str], wanted: NDArray[np.float32], rows: NDArray[np.int64]
) -> dict[str, float]:
    """Return the mean squared logit error with each product alone in INT8.

    Args:
        answers: of graphs.
        products: names of all products.
        wanted: [N, C] logits of the FP32 graph.
        rows: of the texts whose logits are compared.
    """
    everything = frozenset(products)
    return {
        name: float(np.square(answers(everything - {name}, rows) - wanted[rows]).mean()) for name in products
    }


def leave_worst_out(
    answers: Answers,
    products: Sequence[str],
    wanted: NDArray[np.float32],
    targets: NDArray[np.int64],
    limit: float,
    *,
    seed: int,
) -> Mixture:
    """Put back to FP32 the fewest of the most sensitive products that keep the accuracy drop within a limit.

    With all of them in FP32 the drop is 0, so there is an answer for every limit from 0; the number is
    found by bisection, as if every product put back helped. Sensitivity is that of SCORED_TEXTS texts, as
    many of every label as of any other.

    Args:
        answers: of graphs.
        products: names of all products.
        wanted: [N, C] logits of the FP32 graph.
        targets: [N] class indices; -1 where a text has no label.
        limit: accuracy drop allowed, a fraction.
        seed: of the draw of the texts for sensitivity.

    Raises:
        SluiceError: when there is nothing to measure on.
    """
    if len(targets) == 0:
        raise SluiceError("mixed precision needs validation texts")
    rows = np.arange(len(targets))

    def drop(count: int) -> float:
        found = answers(frozenset(ranked[:count]), rows).argmax(1)
        return float((wanted.argmax(1) == targets).mean() - (found == targets).mean())

    ranked: list[str] = []
    found = drop(0)
    if found <= limit:
        return Mixture((), found, {})
    scores = sensitivities(answers, products, wanted, even_rows(targets, SCORED_TEXTS, seed=seed))
    ranked = sorted(scores, key=lambda name: -scores[name])
    too_few, enough, at_enough = 0, len(ranked), 0.0
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        found = drop(middle)
        if found <= limit:
            enough, at_enough = middle, found
        else:
            too_few = middle
    return Mixture(tuple(ranked[:enough]), at_enough, scores)
