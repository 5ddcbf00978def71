"""Estimates with their intervals, from samples that repeat texts and queue behind each other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.formulas import Interval, macro_f1, wilson_interval

DRAWS = 1000
CONFIDENCE = 0.95
BLOCK_S = 1.0


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; None where there are too few samples for one."""

    value: float
    interval: Interval | None
    method: str


@dataclass(frozen=True)
class Answers:
    """N answers with known labels.

    Attributes:
        label, answer: [N] class indices; an answer outside the labels is -1.
        row: [N] row of the data that was asked.
        classes: number of classes.
    """

    label: NDArray[np.int64]
    answer: NDArray[np.int64]
    row: NDArray[np.int64]
    classes: int

    def __len__(self) -> int:
        return len(self.label)

    @property
    def texts(self) -> int:
        """How many distinct rows were asked."""
        return int(np.unique(self.row).size)


def answers_of(
    labels: Sequence[str | None], answers: Sequence[str | None], rows: Sequence[int | None]
) -> Answers:
    """Return the rows that have both a label and an answer, as indices. Rows unknown count as distinct."""
    pairs = enumerate(zip(labels, answers, strict=True))
    kept = [i for i, (label, answer) in pairs if label is not None and answer is not None]
    names = sorted({str(labels[i]) for i in kept})
    index = {name: i for i, name in enumerate(names)}
    return Answers(
        label=np.array([index[str(labels[i])] for i in kept], dtype=np.int64),
        answer=np.array([index.get(str(answers[i]), -1) for i in kept], dtype=np.int64),
        row=np.array([-1 - i if rows[i] is None else rows[i] for i in kept], dtype=np.int64),
        classes=len(names),
    )


def accuracy(answers: Answers) -> Estimate | None:
    """Return the share of right answers, with the Wilson interval for the number of distinct texts.

    Asking a text twice tells nothing new about it, so repeats do not narrow the interval.
    """
    if not len(answers):
        return None
    value = float(np.mean(answers.label == answers.answer))
    n = answers.texts
    return Estimate(
        value, wilson_interval(round(value * n), n, CONFIDENCE), f"Wilson 95% over {n} distinct texts"
    )


def macro_f1_of(answers: Answers, *, seed: int) -> Estimate | None:
    """Return macro-F1 with a percentile bootstrap over distinct texts (cluster bootstrap)."""
    if not len(answers):
        return None
    value = macro_f1(answers.label, answers.answer, answers.classes)
    texts, at = np.unique(answers.row, return_inverse=True)
    side = answers.classes + 1
    cell = answers.label * side + np.where(answers.answer < 0, answers.classes, answers.answer)
    rng = np.random.default_rng([seed, 2])
    draws = np.empty(DRAWS)
    for i in range(DRAWS):
        weight = np.bincount(rng.integers(0, texts.size, texts.size), minlength=texts.size)[at]
        table = np.bincount(cell, weights=weight, minlength=side * side)[: side * side].reshape(side, side)
        hit = np.diag(table)[:-1]
        total = table.sum(axis=1)[:-1] + table.sum(axis=0)[:-1]
        present = total > 0
        draws[i] = np.mean(2 * hit[present] / total[present]) if present.any() else 0.0
    return Estimate(
        value, _percentiles(draws), f"bootstrap 95% over {texts.size} distinct texts, {DRAWS} draws"
    )


def blocks_of(at_s: NDArray[np.float64], values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Cut samples [N] into blocks of one second of intended time: neighbours share a queue."""
    if not len(at_s):
        return []
    block = np.floor((at_s - at_s.min()) / BLOCK_S).astype(np.int64)
    return [values[block == b] for b in np.unique(block)]


def block_bootstrap(
    blocks: Sequence[NDArray[np.float64]],
    statistic: Callable[[NDArray[np.float64]], float],
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Return DRAWS values of a statistic over blocks drawn with replacement (Kuensch 1989, fixed blocks)."""
    rng = np.random.default_rng([seed, 3])
    picks = (rng.integers(0, len(blocks), len(blocks)) for _ in range(DRAWS))
    return np.array([statistic(np.concatenate([blocks[i] for i in pick])) for pick in picks])


def accuracy_difference(first: Answers, second: Answers, *, seed: int) -> Estimate | None:
    """Return accuracy(first) - accuracy(second) over the texts that both were asked, paired bootstrap."""
    right_first, right_second = _right_by_row(first), _right_by_row(second)
    shared = sorted(right_first.keys() & right_second.keys())
    if not shared:
        return None
    gap = np.array([right_first[row] - right_second[row] for row in shared])
    rng = np.random.default_rng([seed, 4])
    draws = np.array([gap[rng.integers(0, gap.size, gap.size)].mean() for _ in range(DRAWS)])
    return Estimate(
        float(gap.mean()),
        _percentiles(draws),
        f"paired bootstrap 95% over {gap.size} texts that both answered, {DRAWS} draws",
    )


def _right_by_row(answers: Answers) -> dict[int, float]:
    rows, at = np.unique(answers.row, return_inverse=True)
    right = np.bincount(at, weights=(answers.label == answers.answer).astype(np.float64))
    share = right / np.bincount(at)
    return {int(row): float(value) for row, value in zip(rows, share, strict=True) if row >= 0}


def _percentiles(draws: NDArray[np.float64]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(draws, tail)), float(np.quantile(draws, 1 - tail))
