"""The threat model: each claim names tests, and each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def named_in_the_tests() -> set[str]:
    """The names of all test functions."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))
    return found


def test_every_test_that_the_threat_model_names_exists() -> None:
    """A claim whose test was renamed or removed is no claim."""
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert named - named_in_the_tests() == set()


def test_every_claim_names_a_test() -> None:
    """Each point below Claims has one."""
    claims = PAGE.partition("## Claims")[2].partition("## Not defended")[0]
    points = re.split(r"^- ", claims, flags=re.MULTILINE)[1:]
    assert [point for point in points if "`test_" not in point] == []


def test_the_security_policy_leads_to_it() -> None:
    """Who reports a weakness finds what is meant to hold."""
    assert "(docs/security.md)" in (ROOT / "SECURITY.md").read_text()
