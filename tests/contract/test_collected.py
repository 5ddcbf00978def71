"""Questions, and the rules by which answers to them are kept."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from contract.collected import KeepRules, Question, Redaction
from contract.errors import BadRequest


def test_a_question_is_known_by_its_labels_and_its_instructions() -> None:
    """What is said of a label, or which model is asked, makes no other question; other words do."""
    asked = Question(labels=("a", "b"), instructions="x")
    assert asked.model_copy(update={"model": "m", "descriptions": {"a": "A"}}).sha256 == asked.sha256
    assert asked.model_copy(update={"instructions": "y"}).sha256 != asked.sha256
    assert asked.model_copy(update={"labels": ("a", "c")}).sha256 != asked.sha256


def test_rules_are_applied_one_after_the_other() -> None:
    """What one rule leaves is what the next sees, and groups may be named."""
    rules = KeepRules(
        redact=(Redaction(pattern=r"(\w+)@\w+\.\w+", instead=r"\1@…"), Redaction(pattern="anna", instead="A"))
    )
    assert rules.redacted("from anna@example.org") == "from A@…"


def test_a_question_that_a_rule_changes_is_marked_and_one_whose_label_it_changes_refused() -> None:
    """Asked in other words it would be another question; and a label stands in every row."""
    rules = KeepRules(redact=(Redaction(pattern="anna"),))
    asked = Question(labels=("a", "b"), instructions="is it anna?", name="anna's")

    assert asked.redacted(rules).reworded
    assert asked.redacted(rules).name == "<redacted>'s"
    assert not asked.redacted(KeepRules()).reworded
    with pytest.raises(BadRequest, match="label"):
        Question(labels=("a", "anna")).redacted(rules)


@pytest.mark.parametrize("pattern", ["(a+)+", "(?:x*|a)*b", r"(\w+\s?)+", "((a|b)*c*)*?", "(?=(a+)+)"])
def test_a_repetition_of_repetitions_is_refused(pattern: str) -> None:
    """On a text that does not match it would take for ever."""
    with pytest.raises(ValidationError, match="for ever"):
        Redaction(pattern=pattern)


@pytest.mark.parametrize(
    "pattern", [r"[\w.+-]+@[\w-]+\.\w+", r"(\w+\.)+\w+", r"(\d{4} ?){4}", r"(?i)\banna\b"]
)
def test_usual_patterns_are_taken(pattern: str) -> None:
    """Addresses, numbers of cards, names."""
    assert Redaction(pattern=pattern).pattern == pattern


@pytest.mark.parametrize(("pattern", "instead"), [("(", ""), ("a", r"\1")])
def test_what_is_no_rule_is_refused_when_it_is_given(pattern: str, instead: str) -> None:
    """A pattern that cannot be read, or a group that it lacks, is no rule."""
    with pytest.raises(ValidationError, match="not a regular expression"):
        Redaction(pattern=pattern, instead=instead)
