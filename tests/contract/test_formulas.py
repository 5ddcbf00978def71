"""Formulas: hand-computed cases, laws, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import formulas


def test_wilson_interval_matches_the_published_example() -> None:
    """Wilson's interval for 81 of 263 at 95% is 0.2553 to 0.3662 (Newcombe 1998, table I)."""
    low, high = formulas.wilson_interval(81, 263)
    assert low == pytest.approx(0.2553, abs=1e-4)
    assert high == pytest.approx(0.3662, abs=1e-4)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_estimate_inside_zero_and_one(case: tuple[int, int]) -> None:
    """The interval lies in [0, 1] and contains the observed share."""
    k, n = case
    low, high = formulas.wilson_interval(k, n)
    assert 0 <= low <= k / n + 1e-12
    assert k / n - 1e-12 <= high <= 1


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_refuses_impossible_counts(k: int, n: int) -> None:
    """Counts that cannot be are a ValueError."""
    with pytest.raises(ValueError, match="wilson_interval"):
        formulas.wilson_interval(k, n)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.floats(0.01, 1))
def test_exact_quantile_is_a_sample_that_enough_samples_do_not_exceed(samples: list[float], q: float) -> None:
    """The quantile is one of the samples, and at least a share q of them is not larger."""
    value = formulas.exact_quantile(samples, q)
    assert value in samples
    assert sum(s <= value for s in samples) >= q * len(samples) - 1e-6


def test_quantile_interval_needs_368_samples_for_p99() -> None:
    """A two-sided 95% interval of p99 exists from 368 samples on."""
    assert formulas.quantile_interval(np.arange(367), 0.99) is None
    assert formulas.quantile_interval(np.arange(368), 0.99) is not None


def test_quantile_interval_covers_the_true_quantile() -> None:
    """Over 400 samples of 1,000 exponentials the 95% interval of p99 misses at most 7% of the time."""
    rng = np.random.default_rng(0)
    true = -math.log(0.01)
    missed = 0
    for _ in range(400):
        interval = formulas.quantile_interval(rng.exponential(size=1000), 0.99)
        assert interval is not None
        missed += not interval[0] <= true <= interval[1]
    assert missed / 400 <= 0.07


def test_macro_f1_of_a_hand_computed_case() -> None:
    """Two classes with F1 of 2/3 and 4/5 have a macro-F1 of 11/15."""
    labels = np.array([0, 0, 1, 1])
    predictions = np.array([0, 1, 1, 1])
    assert formulas.macro_f1(labels, predictions, 3) == pytest.approx(11 / 15)


def test_macro_f1_counts_a_prediction_outside_the_label_set_as_wrong() -> None:
    """An answer that is no label costs recall and breaks nothing."""
    assert formulas.macro_f1(np.array([0, 1]), np.array([0, -2]), 2) == pytest.approx(0.5)


def test_cost_and_energy_formulas_on_hand_computed_cases() -> None:
    """One USD an hour at 10 answers a second is 0.0278 USD per 1,000; 3,600 J for 500 are 2 Wh per 1,000."""
    assert formulas.usd_per_1k(1.0, 1, 10.0) == pytest.approx(1000 / 36000)
    assert formulas.usd_per_1k(1.0, 1, 0.0) == math.inf
    assert formulas.usd_per_1k_from_seconds(36.0, 2.0) == pytest.approx(0.02)
    assert formulas.wh_per_1k(3600.0, 500) == pytest.approx(2.0)
    assert formulas.gco2e(2.0, 500.0) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25))
def test_pareto_mask_keeps_exactly_the_undominated(rows: list[tuple[int, int]]) -> None:
    """A row stays exactly when no other is at least as good everywhere and better somewhere."""
    mask = formulas.pareto_mask(rows)
    for row, kept in zip(rows, mask, strict=True):
        dominated = any(o[0] <= row[0] and o[1] <= row[1] and o != row for o in rows)
        assert kept != dominated


def test_dominators_name_what_beats_what() -> None:
    """Of four rows the last is beaten by two, the equal pair by nothing, and no row by itself or an equal."""
    found = formulas.dominators([(1, 5), (1, 5), (3, 1), (3, 6)])
    assert found.tolist() == [[False] * 4, [False] * 4, [False] * 4, [True, True, True, False]]
    assert formulas.pareto_mask([]).shape == (0,)


def test_no_difference_seen_is_no_certainty() -> None:
    """Where no pair differs the interval holds 0 and keeps a width that shrinks with the number of pairs."""
    widths = []
    for n in (100, 1000):
        low, high = formulas.paired_difference_interval(0.96 * n, 0, 0, 0.04 * n)
        assert low < 0 < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    assert widths[0] > 0.03
    low, high = formulas.paired_difference_interval(10, 0, 0, 0)
    assert low < 0 < high


@given(*[st.integers(0, 300)] * 4)
def test_paired_interval_holds_the_difference_and_turns_with_it(a: int, b: int, c: int, d: int) -> None:
    """It contains the observed difference, lies in [-1, 1], and swapping the two turns its sign."""
    if a + b + c + d == 0:
        with pytest.raises(ValueError, match="paired_difference"):
            formulas.paired_difference_interval(a, b, c, d)
        return
    low, high = formulas.paired_difference_interval(a, b, c, d)
    assert -1 - 1e-9 <= low <= (b - c) / (a + b + c + d) + 1e-12
    assert (b - c) / (a + b + c + d) - 1e-12 <= high <= 1 + 1e-9
    turned = formulas.paired_difference_interval(a, c, b, d)
    assert (-turned[1], -turned[0]) == pytest.approx((low, high))


def test_paired_counts_are_the_four_cells() -> None:
    """Both, the first alone, the second alone, neither."""
    first, second = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    assert formulas.paired_counts(first, second) == (1, 2, 1, 1)


def test_paired_interval_covers_rare_differences() -> None:
    """With 0.5% and 1.5% of 400 pairs differing either way, 95 of 100 intervals hold the true difference."""
    rng = np.random.default_rng(0)
    shares = (0.93, 0.015, 0.005, 0.05)
    draws = rng.multinomial(400, shares, 2000)
    found = [formulas.paired_difference_interval(*row) for row in draws.tolist()]
    assert np.mean([low <= 0.01 <= high for low, high in found]) > 0.93
