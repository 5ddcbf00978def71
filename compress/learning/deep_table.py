"""Training of the deep table: n-grams as vectors, one hidden layer, from labels and a teacher, then INT8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from compress.learning.linear import Array, LinearSettings, NgramRows, minus_goals
from runtime.ngrams.deep_table import DeepTable, in_int8

_FIRST_VECTORS = 0.1
"""Standard deviation of untrained vectors: those of n-grams that training hardly meets stay as small."""
_FIRST, _SECOND, _LEAST = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class DeepTableSettings(LinearSettings):
    """How a deep table is trained.

    Attributes:
        hidden: units H.
        dropout: chance that an n-gram is left out of a text for one step.
        dense_rate: first step size of what is not an n-gram's vector; it falls linearly to zero.
    """

    learning_rate: float = 0.5
    hidden: int = 128
    dropout: float = 0.3
    dense_rate: float = 0.003


def train_deep_table(
    rows: NgramRows,
    targets: NDArray[np.int64],
    classes: int,
    *,
    settings: DeepTableSettings,
    seed: int,
    teacher_logits: NDArray[np.float32] | None = None,
) -> DeepTable:
    """Train a deep table and return it in INT8; the arguments are those of `NgramRows.train`."""
    matrix, goals = rows.goals(targets, classes, settings, teacher_logits)
    network = _fit(matrix, goals, settings, np.random.default_rng(seed))
    vectors, scales = in_int8(network.vectors, axis=1)
    dense, dense_scales = in_int8(network.dense, axis=0)
    return DeepTable(
        buckets=rows.buckets,
        idf=rows.idf,
        vectors=vectors,
        scales=scales,
        hidden_bias=network.hidden_bias,
        dense=dense,
        dense_scales=dense_scales,
        bias=network.bias,
        encoder=rows.options.sha256,
        bits=rows.options.bits,
    )


@dataclass
class _Network:
    """vectors [R, H], hidden_bias [H], dense [H, C], bias [C]."""

    vectors: Array
    hidden_bias: Array
    dense: Array
    bias: Array


class _Adam:
    """Steps of one dense array (Kingma and Ba 2015)."""

    def __init__(self, weights: Array) -> None:
        self._weights = weights
        self._mean = np.zeros_like(weights)
        self._square = np.zeros_like(weights)
        self._steps = 0

    def step(self, slope: Array, rate: float) -> None:
        """Change the weights in place."""
        self._steps += 1
        self._mean += (1 - _FIRST) * (slope - self._mean)
        self._square += (1 - _SECOND) * (slope * slope - self._square)
        mean = self._mean / (1 - _FIRST**self._steps)
        square = self._square / (1 - _SECOND**self._steps)
        self._weights -= rate * mean / (np.sqrt(square) + _LEAST)


def _fit(
    features: sparse.csr_array, goals: Array, settings: DeepTableSettings, rng: np.random.Generator
) -> _Network:
    """Return the network that minimises the cross-entropy to the goals.

    Vectors learn by Adagrad with one step size per n-gram, and a step touches only those of its batch; the
    rest learns by Adam.
    """
    (n, classes), hidden = goals.shape, settings.hidden
    network = _Network(
        vectors=rng.normal(0, _FIRST_VECTORS, (features.shape[1], hidden)).astype(np.float32),
        hidden_bias=np.zeros(hidden, dtype=np.float32),
        dense=rng.normal(0, (2 / hidden) ** 0.5, (hidden, classes)).astype(np.float32),
        bias=np.log(np.maximum(goals.mean(axis=0), 1e-6)).astype(np.float32),
    )
    squares = np.zeros(features.shape[1], dtype=np.float32)
    adams = [_Adam(weights) for weights in (network.hidden_bias, network.dense, network.bias)]
    steps, step = settings.epochs * -(-n // settings.batch_size), 0
    for _ in range(settings.epochs):
        order = rng.permutation(n)
        for start in range(0, n, settings.batch_size):
            rows = order[start : start + settings.batch_size]
            left = 1 - step / steps
            used, batch = _some(features[rows], settings.dropout, rng)
            held = network.vectors[used]
            before = batch @ held + network.hidden_bias
            units = np.maximum(before, 0)
            answers = minus_goals(units @ network.dense + network.bias, goals[rows])
            behind = (answers @ network.dense.T) * (before > 0)
            slope = batch.T @ behind
            squares[used] += np.einsum("ij,ij->i", slope, slope)
            rate = settings.learning_rate * left
            slope *= (rate / (np.sqrt(squares[used]) + _LEAST))[:, None]
            held *= 1 - rate * settings.decay
            network.vectors[used] = held - slope
            slopes = (behind.mean(axis=0), units.T @ answers / len(rows), answers.mean(axis=0))
            for adam, each in zip(adams, slopes, strict=True):
                adam.step(each, settings.dense_rate * left)
            step += 1
    return network


def _some(
    batch: sparse.csr_array, dropout: float, rng: np.random.Generator
) -> tuple[NDArray[np.int32], sparse.csr_array]:
    """Return the n-grams of a batch, and the batch over those alone, some of its values left out."""
    used, places = np.unique(batch.indices, return_inverse=True)
    values = batch.data
    if dropout:
        values = values * (rng.random(values.size, dtype=np.float32) >= dropout) / np.float32(1 - dropout)
    return used, sparse.csr_array((values, places, batch.indptr), shape=(batch.shape[0], used.size))
