"""Mixed precision puts back the products that hurt, and no more of them than the limit asks for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from compress.graphs.mixed import SCORED_TEXTS, leave_worst_out, sensitivities
from contract.errors import SluiceError

N = 200
TARGETS = np.arange(N) % 2
WANTED = np.eye(2, dtype=np.float32)[TARGETS] * 10


class Damage:
    """Graphs of products that each flip so many of the answers while they are in INT8."""

    def __init__(self, **flips: int) -> None:
        self.flips = flips
        self.asked: list[frozenset[str]] = []

    def __call__(self, left_out: frozenset[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return logits of some rows: each product spoils rows of its own."""
        self.asked.append(left_out)
        logits, start = WANTED.copy(), 0
        for name, count in self.flips.items():
            if name not in left_out:
                logits[start : start + count] = logits[start : start + count, ::-1]
            start += count
        return logits[rows]


def test_the_worst_product_goes_back_first() -> None:
    """The product that moves the logits most is the one that stays FP32, and that is enough."""
    damage = Damage(a=8, b=40, c=1)
    mixture = leave_worst_out(damage, list(damage.flips), WANTED, TARGETS, limit=0.05, seed=0)
    assert mixture.left_out == ("b",)
    assert mixture.drop == pytest.approx(9 / N)
    assert mixture.sensitivity["b"] > mixture.sensitivity["a"] > mixture.sensitivity["c"]


def test_nothing_goes_back_within_the_limit() -> None:
    """A drop within the limit costs one measurement and leaves every product in INT8."""
    damage = Damage(a=2, b=2)
    mixture = leave_worst_out(damage, list(damage.flips), WANTED, TARGETS, limit=0.03, seed=0)
    assert mixture.left_out == ()
    assert len(damage.asked) == 1


def test_texts_sorted_by_label_are_scored_evenly() -> None:
    """A product that hurts the last texts of a sorted file is found: as many of every label are scored."""
    targets = np.sort(TARGETS)
    wanted = np.eye(2, dtype=np.float32)[targets] * 10
    spoilt = {"few": slice(0, 5), "last": slice(160, N)}
    scored: list[list[int]] = []

    def answers(left_out: frozenset[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = wanted.copy()
        for name in spoilt.keys() - left_out:
            logits[spoilt[name]] = logits[spoilt[name], ::-1]
        scored.append(np.bincount(targets[rows]).tolist())
        return logits[rows]

    mixture = leave_worst_out(answers, list(spoilt), wanted, targets, limit=0.03, seed=0)
    assert mixture.left_out == ("last",)
    assert scored[1:3] == [[SCORED_TEXTS // 2] * 2] * 2


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.floats(0, 0.1))
def test_the_limit_holds_with_the_fewest(flips: list[int], limit: float) -> None:
    """The drop is within any limit, and with one product fewer in FP32 it would not be."""
    damage = Damage(**{f"p{i}": count for i, count in enumerate(flips)})
    mixture = leave_worst_out(damage, list(damage.flips), WANTED, TARGETS, limit, seed=0)
    assert mixture.drop <= limit + 1e-12
    if mixture.left_out:
        fewer = damage(frozenset(mixture.left_out[:-1]), np.arange(N))
        assert 1 - float((fewer.argmax(1) == TARGETS).mean()) > limit


def test_sensitivity_is_of_one_product_alone() -> None:
    """Each product is measured with all others in FP32."""
    damage = Damage(a=1, b=4)
    scores = sensitivities(damage, ["a", "b"], WANTED, np.arange(N))
    assert damage.asked == [frozenset({"b"}), frozenset({"a"})]
    assert scores["b"] == pytest.approx(4 * scores["a"])


def test_nothing_to_measure_on_is_said() -> None:
    """Without validation texts there is no drop to keep within a limit."""
    with pytest.raises(SluiceError, match="validation"):
        leave_worst_out(Damage(a=1), ["a"], WANTED[:0], TARGETS[:0], 0.1, seed=0)
