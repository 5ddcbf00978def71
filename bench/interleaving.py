"""Timing in turns: in every round all candidates answer the same inputs, each round in another order."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)
Input = TypeVar("Input")


def time_interleaved(
    calls: Mapping[Key, Callable[[Input], object]],
    inputs: Sequence[Input],
    *,
    rounds: int,
    per_round: int,
    rng: np.random.Generator,
) -> dict[Key, NDArray[np.float64]]:
    """Return per candidate the milliseconds [rounds, per_round] of single calls; a first round warms up.

    Args:
        calls: what is timed.
        inputs: every round draws `per_round` of them.
        rounds, per_round: how many.
        rng: of inputs and order.
    """
    keys = list(calls)
    took = {key: np.empty((rounds + 1, per_round)) for key in keys}
    for number in range(rounds + 1):
        drawn = [inputs[at] for at in rng.integers(0, len(inputs), per_round)]
        for place in rng.permutation(len(keys)):
            call, row = calls[keys[place]], took[keys[place]][number]
            for at, given in enumerate(drawn):
                started = time.perf_counter()
                call(given)
                row[at] = (time.perf_counter() - started) * 1000
    return {key: rows[1:] for key, rows in took.items()}
