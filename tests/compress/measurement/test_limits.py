"""Tiers and limits: what passes, what fails, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.measurement.limits import TIERS, judged, tier_of
from compress.recipes.recipe import Limits
from contract.family import Artifact, Latency, SliceQuality, Variant, Verification

ARTIFACT = Artifact(path="a", sha256="0" * 64, bytes=1)


def variant(name: str = "small", *, p50_ms: float = 1.0, **figures: Any) -> Variant:
    """A measured variant."""
    latency = Latency(batch=1, concurrency=1, threads=1, n=9, p50_ms=p50_ms, p99_ms=2 * p50_ms)
    return Variant(
        name=name,
        kind="distilled",
        runtime="onnx",
        artifact=ARTIFACT,
        encoder="e",
        latency=(latency,),
        **figures,
    )


TEACHER = variant("teacher", p50_ms=5.0, accuracy=0.95)


def failures(found: Variant, **limits: Any) -> tuple[str, ...]:
    """What a variant breaks."""
    return judged(found, TEACHER, Limits(**limits)).failed_limits


@pytest.mark.parametrize(
    ("drop", "tier"),
    [(-0.01, "critical"), (0.0, "critical"), (0.0049, "critical"), (0.005, "high"), (0.0099, "high"),
     (0.01, "medium"), (0.0299, "medium"), (0.03, None), (0.5, None)],
)  # fmt: skip
def test_a_tier_ends_below_its_limit(drop: float, tier: str | None) -> None:
    """Half a point, one point and three points are outside the tier that they name."""
    assert tier_of(drop) == tier
    assert judged(variant(accuracy_delta=-drop), TEACHER, Limits()).tier == tier


def test_float_arithmetic_moves_nothing_over_a_limit() -> None:
    """0.95 - 0.94 is a little more than 0.01 in floats, and still keeps a limit of one point."""
    assert 0.95 - 0.94 > 0.01
    assert failures(variant(accuracy_delta=0.94 - 0.95), accuracy_drop=0.01) == ()
    assert judged(variant(accuracy_delta=0.945 - 0.95), TEACHER, Limits()).tier == "high"


def test_speed_up_is_against_the_teacher() -> None:
    """5 ms against 1 ms is five times as fast."""
    assert judged(variant(), TEACHER, Limits()).speed_up == 5.0


def test_without_limits_the_last_tier_decides() -> None:
    """A drop of three points fails where the recipe says nothing; its own accuracy drop replaces that."""
    lost = variant(accuracy_delta=-0.03)
    assert failures(lost) == ("accuracy drop 0.0300, the tier medium ends below 0.03",)
    assert failures(lost, accuracy_drop=0.03) == ()
    assert failures(variant(accuracy_delta=-0.0299)) == ()


def test_a_tier_can_be_asked_for() -> None:
    """A variant of the medium tier fails where the recipe wants the high one, beside its other limits."""
    lost = variant(accuracy_delta=-0.02)
    assert failures(lost, tier="high") == ("accuracy drop 0.0200, the tier high ends below 0.01",)
    assert failures(lost, tier="medium", accuracy_drop=0.015) == ("accuracy drop 0.0200, limit 0.015",)


def test_a_slice_that_must_be_right_fails_the_variant_whatever_the_teacher_does() -> None:
    """One row wrong of a slice with a floor of 1 fails, though the variant loses nothing to its teacher."""
    wrong = SliceQuality(n=40, accuracy=0.975, accuracy_delta=0.0)
    found = variant(accuracy_delta=0.0, per_slice={"refunds": wrong})
    said = "slice 'refunds': accuracy 0.9750 on 40 rows, always at least 1"
    assert failures(found, always=["refunds"]) == (said,)
    assert failures(found, always={"refunds": 0.975}) == ()
    right = variant(accuracy_delta=0.0, per_slice={"refunds": SliceQuality(n=40, accuracy=1.0)})
    assert failures(right, always=["refunds"]) == ()


def test_a_slice_may_have_a_floor_and_a_drop() -> None:
    """Both limits of a slice are judged, and one that has no rows is said once."""
    found = variant(accuracy_delta=0.0, per_slice={"s": SliceQuality(n=9, accuracy=0.5, accuracy_delta=-0.2)})
    broken = failures(found, slices={"s": 0.1, "t": 0.1}, always={"s": 0.6, "t": 1})
    assert [words.partition(":")[0] for words in broken] == [
        "slice 's'", "slice 's'", "the slice 't' has no rows in the test split"
    ]  # fmt: skip


def test_every_other_limit_says_what_it_found() -> None:
    """Faithfulness, macro-F1 and p99 are judged with the figure and the limit."""
    check = Verification(label_agreement=0.9, max_logit_error=1, n=200, agreement_limit=0.97)
    found = variant(accuracy_delta=0.0, macro_f1_delta=-0.04, verification=check)
    assert failures(found, macro_f1_drop=0.03, latency_p99_ms=1.5) == (
        "agrees with its source on 90.0%, limit 97.0%",
        "macro-F1 drop 0.0400, limit 0.03",
        "p99 2.00 ms, limit 1.5 ms",
    )


@given(st.floats(-1, 1, allow_nan=False), st.floats(0, 1))
def test_a_variant_fails_a_drop_exactly_when_it_lost_more(delta: float, limit: float) -> None:
    """Whatever the figures, the limit is kept by a drop that is not above it, to nine digits."""
    fails = bool(failures(variant(accuracy_delta=delta), accuracy_drop=limit))
    assert fails == (round(-delta, 9) > limit)


def test_better_tiers_have_smaller_limits() -> None:
    """The tiers are listed from the best."""
    assert list(TIERS.values()) == sorted(TIERS.values())
