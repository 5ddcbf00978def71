"""What the compression benchmark says of families, on latencies and answers made by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.compression.evidence import Line, Prediction, Seed, compare, curve, read_seed
from bench.compression.goals import Goal, answer
from bench.compression.page import table_table
from bench.compression.timing import Timing
from runtime.fake_family import write_fake_family

SMALL, OTHER, LARGE = "fake-small", "fake-other", "fake-large"


def timing(p50_ms: float, drift: tuple[float, ...] = (1.0, 1.5, 3.0)) -> Timing:
    """Latencies of three rounds on a machine that slows down."""
    return Timing(p50_ms, 2 * p50_ms, p50_ms * np.array(drift))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seed, Seed]:
    """Two families, one of them timed on a machine half as fast."""
    found = []
    for number in range(2):
        folder = tmp_path_factory.mktemp(f"seed-{number}")
        family = write_fake_family(folder, seed=number)
        times = {SMALL: 1.0, OTHER: 3.0, LARGE: 10.0}
        timings = {name: timing((number + 1) * ms) for name, ms in times.items()}
        predictions = {SMALL: Prediction(whole=LARGE, p50_ms=2.0, whole_p50_ms=18.0)}
        found.append(read_seed(number, folder, family, timings, predictions))
    return found[0], found[1]


def line(p50_ms: float, validation: float) -> Line:
    """A line of which only these two figures count."""
    return Line("v", 0.5, (), validation, 0.0, (0.0, 0.0), 1.0, (1.0, 1.0), p50_ms, 0.0, 0.0, 0.0, 0.0)


def test_drops_are_paired_and_ratios_survive_drift(seeds: tuple[Seed, Seed]) -> None:
    """A drop is the mean over seeds of the difference on the same rows; speed is compared round by round."""
    found = compare(seeds, SMALL, LARGE)
    drops = [seed.test[LARGE].mean() - seed.test[SMALL].mean() for seed in seeds]
    assert found.drop == pytest.approx(np.mean(drops))
    assert found.drop_interval[0] < found.drop < found.drop_interval[1]
    assert found.speed_up == pytest.approx(10.0)
    assert found.p50_ms == pytest.approx(1.5)
    assert compare(seeds, LARGE, LARGE).drop_interval == (0.0, 0.0)


def test_rows_to_choose_on_are_not_the_test_rows(seeds: tuple[Seed, Seed]) -> None:
    """Choices see the rows of tune and certify, and no others."""
    family, found = seeds[0].family, seeds[0]
    assert len(found.test[SMALL]) == family.splits["test"].n
    assert len(found.chosen[SMALL]) == family.splits["tune"].n + family.splits["certify"].n


def test_a_goal_is_answered_by_validation_and_judged_on_test(seeds: tuple[Seed, Seed]) -> None:
    """Of those that are fast enough the best on validation answers, though another is better on test."""
    other_way: dict[str, NDArray[np.bool_]] = {SMALL: np.ones(9, np.bool_), OTHER: np.zeros(9, np.bool_)}
    swapped = tuple(replace(seed, chosen={**seed.chosen, **other_way}) for seed in seeds)
    goal = Goal("g", lambda name: name != LARGE, LARGE, times=2.0, drop=0.05)
    for given_seeds, name, held in ((seeds, OTHER, True), (swapped, SMALL, False)):
        found = answer(goal, given_seeds)
        assert found.line is not None
        assert (found.line.name, found.held) == (name, held)
    assert answer(replace(goal, times=11.0), seeds).line is None
    assert not answer(replace(goal, times=11.0), seeds).held


def test_the_curve_loses_no_point_that_is_far_enough() -> None:
    """Near neighbours do not displace one another down to a single point."""
    rising = [line(ms, accuracy) for ms, accuracy in ((1.0, 0.90), (1.08, 0.91), (1.16, 0.92), (1.24, 0.93))]
    assert [item.p50_ms for item in curve([*rising, line(1.3, 0.5)])] == [1.24, 1.08]


@given(st.lists(st.tuples(st.floats(0.1, 10), st.sampled_from([0.8, 0.85, 0.9, 0.95])), min_size=1))
def test_nothing_beats_a_point_of_the_curve(points: list[tuple[float, float]]) -> None:
    """Neighbours are a tenth apart, and no line is both as accurate and faster, or as fast and better."""
    lines = [line(*point) for point in points]
    found = curve(lines)
    assert all(slow.p50_ms >= 1.1 * fast.p50_ms for slow, fast in pairwise(found))
    for point in found:
        for other in lines:
            worse = other.validation < point.validation or other.p50_ms > point.p50_ms
            assert worse or (other.validation, other.p50_ms) == (point.validation, point.p50_ms)


def test_a_table_is_judged_against_the_unpruned_network(seeds: tuple[Seed, Seed]) -> None:
    """A machine that is half as fast as when the table was made is no error of the table; the rest is."""
    text = table_table(seeds)
    assert text.count("9.00 / 10.00 (-10.0%)") == 2
    assert "differs by 10.0% at most" in text
    assert "2.000 / 1.000 ms" in text
