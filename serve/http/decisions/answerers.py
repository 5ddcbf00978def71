"""Who answers each question, found once and kept as long as the same is served."""

from __future__ import annotations

from typing import Any

from contract.errors import NotReady, UnknownModel
from serve.dataplane.front import Plane
from serve.dataplane.served import Stopping
from serve.settings.decisions import DecisionSettings
from serve.settings.limits import RequestLimits
from serve.types.messages import ModelInfo
from serve.wire.decisions.asked import Asked, Question, instructions_in
from serve.wire.decisions.matching import Match, Matcher, Unserved

_MOST_KEPT = 1024
"""Applications ask the same questions again and again; whoever never does shall not fill the memory."""
_MOST_CHARACTERS = 16_384
"""Of what one of them is kept by."""


class Answerers:
    """Finds who answers.

    Args:
        dataplane: tells what is served.
        settings: who answers what.
        limits: caps of one text.
        alone: whether there is nobody else to answer; then there must be something served.
    """

    def __init__(
        self, dataplane: Plane, settings: DecisionSettings, limits: RequestLimits, *, alone: bool
    ) -> None:
        self._dataplane = dataplane
        self._matcher = Matcher(settings, alone=alone)
        self._limits = limits
        self._alone = alone
        self._catalogue: tuple[ModelInfo, ...] = ()
        self._kept: dict[tuple[Any, ...], Match | Unserved] = {}

    def of(self, asked: Asked) -> list[Match | Unserved]:
        """Return who answers each question, in order. Raises NotReady."""
        try:
            catalogue = self._dataplane.catalogue()
        except Stopping:
            raise
        except NotReady:
            if self._alone:
                raise
            catalogue = ()
        if catalogue is not self._catalogue:
            self._catalogue, self._kept = catalogue, {}
        if asked.unread is not None:
            return [Unserved(asked.unread.message)] * len(asked.questions)
        found = [self._of(question, asked) for question in asked.questions]
        if self._alone and self._dataplane.falls_short and _may_be_another_s(found, asked):
            raise NotReady("a family that may answer is not ready here")
        return found

    def _of(self, question: Question, asked: Asked) -> Match | Unserved:
        if question.kind == "other":
            return self._matcher.match(question, asked, self._catalogue)
        words = instructions_in(question.raw)
        images = min(len(asked.images), 2)
        key = (asked.model, question.name, question.kind, question.values, words, images)
        found = self._kept.get(key)
        if found is None:
            found = self._matcher.match(question, asked, self._models(question, asked))
            if _characters(question, asked) + len(words) <= _MOST_CHARACTERS:
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                self._kept[key] = found
        if isinstance(found, Match) and found.by_image:
            length, most = len(asked.images[0]), self._limits.max_characters
            if length > most:
                return Unserved(f"the image has {length} characters as a data URL; at most {most}")
        return found

    def _models(self, question: Question, asked: Asked) -> tuple[ModelInfo, ...]:
        """Return what is served, and the model that is named where it has more names than are listed."""
        name = self._matcher.named(question, asked)
        if any(info.name == name for info in self._catalogue):
            return self._catalogue
        try:
            return (*self._catalogue, self._dataplane.model(name))
        except (UnknownModel, NotReady):
            return self._catalogue


def _may_be_another_s(found: list[Match | Unserved], asked: Asked) -> bool:
    """Return whether a question that nobody answers is of a kind that families answer."""
    pairs = zip(found, asked.questions, strict=True)
    return any(isinstance(one, Unserved) and question.kind != "other" for one, question in pairs)


def _characters(question: Question, asked: Asked) -> int:
    named = len(asked.model) + len(question.name or "")
    return named + sum(len(value) for value in question.values if isinstance(value, str))
