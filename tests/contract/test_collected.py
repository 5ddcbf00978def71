"""Questions, and the rules by which answers to them are kept."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from contract.collected import KeepRules, Question, Redaction


def test_a_choice_is_known_by_its_labels_and_a_predicate_by_its_instructions() -> None:
    """Other instructions make another predicate, and the same choice."""
    labels = ("a", "b")
    assert (
        Question(labels=labels, instructions="x").sha256 == Question(labels=labels, instructions="y").sha256
    )
    asked = [Question(kind="predicate", labels=labels, instructions=words).sha256 for words in "xy"]
    assert asked[0] != asked[1]


def test_rules_are_applied_one_after_the_other() -> None:
    """What one rule leaves is what the next sees, and groups may be named."""
    rules = KeepRules(
        redact=(Redaction(pattern=r"(\w+)@\w+\.\w+", instead=r"\1@…"), Redaction(pattern="anna", instead="A"))
    )
    assert rules.redacted("from anna@example.org") == "from A@…"


@pytest.mark.parametrize(("pattern", "instead"), [("(", ""), ("a", r"\1")])
def test_what_is_no_rule_is_refused_when_it_is_given(pattern: str, instead: str) -> None:
    """A pattern that cannot be read, or a group that it lacks, is no rule."""
    with pytest.raises(ValidationError, match="not a regular expression"):
        Redaction(pattern=pattern, instead=instead)
