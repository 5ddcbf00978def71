"""What a sweep over thresholds drives, and how thresholds are written."""

from __future__ import annotations

import click
import pytest

from contract.policy import Policy, Stage
from sluicegate.sweep_thresholds import arms_of, parsed

FIRST = Stage(variant="small", threshold=0.5)


def test_each_threshold_and_each_variant_is_an_arm() -> None:
    """Thresholds once each, the reference though no stage has it, and of several families the one meant."""
    policy = Policy(status="uncertified", reference="large", stages=(FIRST, Stage(variant="middle")))
    arms = arms_of(policy, (0.9, 0.5, 0.9), None)
    assert [arm.model for arm in arms] == ["cascade", "cascade", "small", "middle", "large"]
    assert [arm.threshold for arm in arms] == [0.5, 0.9, None, None, None]
    assert [arm.model for arm in arms_of(policy, (0.5,), "news")][:2] == ["news", "news/small"]


def test_a_person_in_the_last_place_is_no_arm() -> None:
    """A policy that abstains has variants to drive, and nobody to ask by the name of abstain."""
    policy = Policy(status="uncertified", reference="small", stages=(FIRST, Stage(variant="abstain")))
    assert [arm.name for arm in arms_of(policy, (0.5,), None)] == ["0.5", "small"]


@pytest.mark.parametrize(
    ("given", "found"), [("0.5,0.7", (0.5, 0.7)), ("0.5:0.9:3", (0.5, 0.7, 0.9)), ("0:1:2", (0.0, 1.0))]
)
def test_thresholds_are_a_list_or_a_range(given: str, found: tuple[float, ...]) -> None:
    """A range names its ends and how many there are."""
    assert parsed(given) == found


@pytest.mark.parametrize("given", ["", "a,b", "0.5:0.9", "0.5:0.9:1", "0.5,1.5", "nan"])
def test_other_thresholds_are_refused(given: str) -> None:
    """What is neither, or no score could be held against, is wrong usage."""
    with pytest.raises(click.BadParameter):
        parsed(given)
