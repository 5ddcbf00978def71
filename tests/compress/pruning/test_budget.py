"""Widths are chosen within the budget and as well as they can be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.pruning.budget import BUCKETS, Allocation, Options, allocate, search
from contract.errors import RecipeError


def random_halves(halves: int, options: int, seed: int) -> list[Options]:
    """Return halves whose faster options have larger errors."""
    rng = np.random.default_rng(seed)
    return [
        Options(np.sort(rng.random(options)), np.sort(rng.random(options))[::-1].copy())
        for _ in range(halves)
    ]


def cost(halves: list[Options], allocation: Allocation, weights: np.ndarray) -> tuple[float, float]:
    """Return the time and the weighted error of an allocation."""
    picked = list(zip(halves, allocation, strict=True))
    errors = [float(half.errors[k]) for half, k in picked]
    return sum(float(half.times_ms[k]) for half, k in picked), float(np.dot(weights, errors))


@settings(deadline=None)
@given(halves=st.integers(1, 4), options=st.integers(1, 4), seed=st.integers(0, 999), share=st.floats(0, 1.2))
def test_no_allocation_is_better(halves: int, options: int, seed: int, share: float) -> None:
    """The budget holds, and all that is better takes more than the budget less the rounding of times."""
    made, weights = random_halves(halves, options, seed), np.random.default_rng(seed).random(halves) + 0.1
    least = sum(float(half.times_ms.min()) for half in made)
    most = sum(float(half.times_ms.max()) for half in made)
    budget = least + share * (most - least)
    found = allocate(made, weights, budget)
    time, error = cost(made, found, weights)
    assert time <= budget + 1e-9
    slack = halves * (budget - least) / BUCKETS
    for other in itertools.product(range(options), repeat=halves):
        other_time, other_error = cost(made, other, weights)
        assert other_error >= error - 1e-9 or other_time > budget - slack - 1e-9


def test_a_budget_below_the_fastest_is_refused() -> None:
    """What cannot be had is said with both times."""
    with pytest.raises(RecipeError, match="smaller speed_ups"):
        allocate(random_halves(3, 3, 0), np.ones(3), 0.0)


def test_a_large_weight_protects_its_half() -> None:
    """Of two equal halves the one that matters more stays wide."""
    half = Options(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert allocate([half, half], np.array([1.0, 2.0]), 1.0) == (0, 1)
    assert allocate([half, half], np.array([2.0, 1.0]), 1.0) == (1, 0)


def test_search_finds_what_the_loss_prefers() -> None:
    """Where the errors mislead, trials find an allocation of less loss; the same seed finds the same."""
    halves = random_halves(6, 5, 3)
    truth = np.array([9.0, 0.1, 0.1, 5.0, 0.1, 0.1])

    def loss(allocation: Allocation) -> float:
        return cost(halves, allocation, truth)[1]

    budget = 0.5 * sum(float(half.times_ms.max()) for half in halves)
    told: list[float] = []
    runs = [
        search(
            halves, np.ones(6), budget, loss, trials=40, seed=1, report=lambda share, _: told.append(share)
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    found = runs[0]
    assert found.score == loss(found.allocation) < 0.7 * loss(allocate(halves, np.ones(6), budget))
    assert cost(halves, found.allocation, truth)[0] <= budget
    assert 1 < found.tried <= 41
    assert max(told) <= 1


def test_search_ends_where_there_is_no_choice() -> None:
    """One possible allocation is tried once, however many trials are allowed."""
    only = [Options(np.array([0.5]), np.array([0.2]))] * 3
    found = search(only, np.ones(3), 2.0, lambda _: 1.0, trials=5, seed=0, report=lambda *_: None)
    assert found.allocation == (0, 0, 0)
    assert found.tried == 1
