"""Who answers is found once, for as long as the same is served, and in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest

from serve.dataplane.family_planes import FamilyPlanes
from serve.http.decisions import answerers
from serve.http.decisions.answerers import Answerers
from serve.settings.decisions import DecisionSettings
from serve.settings.limits import RequestLimits
from serve.types.messages import ModelInfo
from serve.wire.decisions.asked import Asked, Question
from serve.wire.decisions.matching import Match, Unserved


class Listed(FamilyPlanes):
    """A plane that lists what it is told to."""

    def __init__(self, *labels: str) -> None:
        super().__init__()
        self.listed = (ModelInfo("m", labels, "cascade", ""),)

    def catalogue(self) -> tuple[ModelInfo, ...]:
        """Give the list."""
        return self.listed


def asked(*values: str) -> Asked:
    """A request with one choice."""
    return Asked("gpt", "t", (), None, [Question("choice", None, values, {})], {}, None, b"", False)


def of(plane: Listed, **limits: Any) -> Answerers:
    """The answerers of a plane."""
    return Answerers(plane, DecisionSettings(), RequestLimits(**limits), alone=True)


def test_a_match_is_kept_until_something_else_is_served() -> None:
    """The very same object, and a new one once the catalogue is another."""
    plane = Listed("a", "b")
    found = of(plane)
    first = found.of(asked("a", "b"))[0]
    assert isinstance(first, Match)
    assert found.of(asked("a", "b"))[0] is first
    plane.listed = (ModelInfo("m", ("a", "c"), "cascade", ""),)
    assert isinstance(found.of(asked("a", "b"))[0], Unserved)


def test_whoever_asks_something_else_each_time_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept are so many at most, and none that is large."""
    monkeypatch.setattr(answerers, "_MOST_KEPT", 8)
    found = of(Listed("a", "b"))
    for number in range(50):
        found.of(asked("a", str(number)))
    assert len(found._kept) <= 8
    found._kept.clear()
    found.of(asked("a", "x" * 20_000))
    assert not found._kept


def test_an_image_beyond_the_limit_of_a_text_is_not_read() -> None:
    """It may be the upstream's to read."""
    plane = Listed("a", "b")
    plane.listed = (ModelInfo("m", ("a", "b"), "cascade", "", images=True),)
    request = asked("a", "b")
    request.images = ("data:image/png;base64," + "A" * 100,)
    assert isinstance(of(plane).of(request)[0], Match)
    assert isinstance(of(plane, max_characters=50).of(request)[0], Unserved)
