"""Training of the linear stage: softmax regression on tf-idf of hashed n-grams, from labels and a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from runtime.ngrams.encoder import NgramEncoder, NgramOptions
from runtime.ngrams.features import tf_idf
from runtime.ngrams.linear import LinearModel

Array = NDArray[np.float32]


@dataclass(frozen=True)
class LinearSettings:
    """How a linear model is trained.

    Attributes:
        epochs: passes over the training texts.
        soft_weight: share of the loss that the teacher's answers make, where there are some.
        min_documents: an n-gram needs to occur in so many training texts to get a weight.
        learning_rate: first step size; it falls linearly to zero.
        decay: pull of the weights to zero, per step size.
        temperature: divides the teacher's logits.
        batch_size: texts per step.
    """

    epochs: int
    soft_weight: float
    min_documents: int = 2
    learning_rate: float = 0.5
    decay: float = 1e-6
    temperature: float = 1.0
    batch_size: int = 64


@dataclass(frozen=True)
class NgramRows:
    """N training texts as the linear stage sees them, made once for several trainings.

    Attributes:
        matrix: [N, R] tf-idf as serving computes it.
        buckets: [R] ascending: the n-grams that get a weight.
        idf: [R].
        options: what the n-grams are.
    """

    matrix: sparse.csr_array
    buckets: NDArray[np.uint32]
    idf: Array
    options: NgramOptions

    @classmethod
    def of(cls, texts: Sequence[str], options: NgramOptions, *, min_documents: int) -> NgramRows:
        """Return the rows of texts; an n-gram needs to occur in so many of them to get a weight."""
        matrix, buckets, idf = _features(texts, NgramEncoder(options), min_documents)
        return cls(matrix, buckets, idf, options)

    def train(
        self,
        targets: NDArray[np.int64],
        classes: int,
        *,
        settings: LinearSettings,
        seed: int,
        teacher_logits: NDArray[np.float32] | None = None,
    ) -> LinearModel:
        """Train and return a linear model; without a teacher only the texts with a label count.

        Args:
            targets: [N] class indices; -1 where a text has no label and only the teacher's answer counts.
            classes: C.
            settings: of the training.
            seed: of the order of the texts.
            teacher_logits: [N, C] for distillation (Hinton, Vinyals and Dean 2015); a row of NaN where the
                teacher has no answer and only the label counts.

        Raises:
            ValueError: when there is neither a label nor a teacher.
        """
        matrix, goals = self.goals(targets, classes, settings, teacher_logits)
        weights, bias = _fit(matrix, goals, settings, seed)
        return LinearModel(
            buckets=self.buckets,
            weights=weights,
            idf=self.idf,
            bias=bias,
            encoder=self.options.sha256,
            bits=self.options.bits,
        )

    def goals(
        self,
        targets: NDArray[np.int64],
        classes: int,
        settings: LinearSettings,
        teacher_logits: NDArray[np.float32] | None,
    ) -> tuple[sparse.csr_array, Array]:
        """Return the rows to learn from, and the probabilities [N, C] that they should have; see `train`."""
        matrix = self.matrix
        if teacher_logits is None:
            rows = np.flatnonzero(targets >= 0)
            if not rows.size:
                raise ValueError("texts without any label need a teacher's answers")
            matrix, targets = matrix[rows], targets[rows]
        return matrix, _goals(targets, classes, teacher_logits, settings)


def _features(
    texts: Sequence[str], encoder: NgramEncoder, min_documents: int
) -> tuple[sparse.csr_array, NDArray[np.uint32], Array]:
    """Return tf-idf rows [N, R] as serving computes them, the R buckets, and their idf.

    idf = log((1 + N) / (1 + documents with it)) + 1, smoothed as in scikit-learn's TfidfVectorizer.
    """
    grams = [encoder.buckets(text) for text in texts]
    distinct = [np.unique(row) for row in grams]
    found, documents = np.unique(np.concatenate(distinct), return_counts=True)
    enough = documents >= min(min_documents, len(texts))
    buckets = found[enough].astype(np.uint32)
    idf = (np.log((1 + len(texts)) / (1 + documents[enough])) + 1).astype(np.float32)
    table = np.full(1 << encoder.options.bits, -1, dtype=np.int32)
    table[buckets] = np.arange(buckets.size, dtype=np.int32)
    rows = [tf_idf(table[row], idf) for row in grams]
    matrix = sparse.csr_array(
        (
            np.concatenate([values for _, values in rows]),
            np.concatenate([columns for columns, _ in rows]),
            np.cumsum([0, *(columns.size for columns, _ in rows)]),
        ),
        shape=(len(texts), buckets.size),
    )
    return matrix, buckets, idf


def _goals(
    targets: NDArray[np.int64], classes: int, teacher: NDArray[np.float32] | None, settings: LinearSettings
) -> Array:
    if teacher is None:
        return np.eye(classes, dtype=np.float32)[targets]
    labelled, answered = targets >= 0, ~np.isnan(teacher[:, 0])
    scaled = np.where(answered[:, None], teacher, np.float32(0)) / settings.temperature
    soft = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    hard = np.eye(classes, dtype=np.float32)[np.maximum(targets, 0)]
    share = np.where(answered, np.where(labelled, settings.soft_weight, 1.0), 0.0)
    share = share[:, None].astype(np.float32)
    mixed: Array = (share * soft + (1 - share) * hard).astype(np.float32)
    return mixed


def minus_goals(answers: Array, goals: Array) -> Array:
    """Return the softmax of answers [B, C], which is overwritten, minus the goals: the loss's slope."""
    answers -= answers.max(axis=1, keepdims=True)
    np.exp(answers, out=answers)
    answers /= answers.sum(axis=1, keepdims=True)
    answers -= goals
    return answers


def _fit(
    features: sparse.csr_array, goals: Array, settings: LinearSettings, seed: int
) -> tuple[Array, Array]:
    """Return weights [R, C] and bias [C] that minimise the cross-entropy to the goals.

    Adagrad (Duchi, Hazan and Singer 2011) with one step size per n-gram; a step touches only the n-grams
    of its batch.
    """
    n, classes = goals.shape
    rng = np.random.default_rng(seed)
    weights = np.zeros((features.shape[1], classes), dtype=np.float32)
    bias = np.log(np.maximum(goals.mean(axis=0), 1e-6)).astype(np.float32)
    squares = np.zeros(features.shape[1], dtype=np.float32)
    steps = settings.epochs * -(-n // settings.batch_size)
    step = 0
    for _ in range(settings.epochs):
        order = rng.permutation(n)
        for start in range(0, n, settings.batch_size):
            rows = order[start : start + settings.batch_size]
            batch = features[rows]
            used, places = np.unique(batch.indices, return_inverse=True)
            batch = sparse.csr_array((batch.data, places, batch.indptr), shape=(len(rows), used.size))
            held = weights[used]
            answers = minus_goals(batch @ held + bias, goals[rows])
            slope = batch.T @ answers
            squares[used] += np.einsum("ij,ij->i", slope, slope)
            rate = settings.learning_rate * (1 - step / steps)
            slope *= (rate / (np.sqrt(squares[used]) + 1e-8))[:, None]
            held *= 1 - rate * settings.decay
            weights[used] = held - slope
            bias -= rate * answers.mean(axis=0)
            step += 1
    return weights, bias
