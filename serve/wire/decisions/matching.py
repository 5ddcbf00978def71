"""Which served model answers a question, and which of its labels stands for each choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from serve.settings.decisions import DecisionSettings, QuestionRule, Reading
from serve.types.messages import CASCADE, ModelInfo
from serve.wire.decisions.asked import Asked, Question, Value, instructions_in

_KINDS = frozenset({"choice", "predicate", "score"})
_EVIDENT_YES = ("true", "yes", "1")


@dataclass(slots=True, eq=False)
class Match:
    """A question that is answered here.

    Attributes:
        model: who answers.
        family_labels: the label set that the match was made on.
        rows: index in it of each value of the question, in order; of a predicate, of its yes.
        values: what each level of a score counts; empty for others.
        offered: how many of the labels the question offers; all for a predicate.
        by_image: whether the model sees the image; else it reads the text.
        meant: whether the question is known to be for this model: somebody named one of the two, or the
            family was made for just these instructions.
    """

    model: str
    family_labels: tuple[str, ...]
    rows: np.ndarray[tuple[int], np.dtype[np.intp]]
    values: tuple[int, ...]
    offered: int
    by_image: bool
    meant: bool = True

    @property
    def whole(self) -> bool:
        """Whether every label is offered."""
        return self.offered == len(self.family_labels)


@dataclass(slots=True, eq=False)
class Unserved:
    """A question that no model here answers, and why."""

    reason: str


class Matcher:
    """Finds who answers, by the settings. Pure: equal arguments give equal answers.

    Args:
        settings: who answers what, and how labels are read.
        alone: whether there is nobody else to answer. Else labels alone settle only what is all labels of a
            family, and not under other instructions than it was made for, where those are known.
    """

    def __init__(self, settings: DecisionSettings, *, alone: bool = True) -> None:
        self._settings = settings
        self._alone = alone

    def match(self, question: Question, asked: Asked, models: Sequence[ModelInfo]) -> Match | Unserved:
        """Return who answers a question.

        The settings' word on the question's name comes first; then the request's `model`, where it is the
        name of a served one; then the labels, where the settings let them decide.
        """
        if question.kind == "other":
            if question.raw["type"] in _KINDS:
                return Unserved("its instructions are more than words")
            return Unserved(f"questions of type {question.raw['type'][:40]!r} are not answered here")
        rule = self._rule(question)
        wanted = self.named(question, asked)
        info = next((model for model in models if model.name == wanted), None)
        if rule is not None:
            if info is None:
                return Unserved(f"this question is for {rule.model!r}, which is not served now")
            reading = rule.over(self._reading_of(info))
            return _fit(question, asked, info, reading)
        if info is not None:
            return _fit(question, asked, info, self._reading_of(info))
        if not self._settings.by_labels:
            return Unserved("the settings name no family for it")
        if question.kind == "predicate":
            return Unserved(
                "a predicate has no labels that tell its family: the settings or `model` must name it"
            )
        return self._by_labels(question, asked, models)

    def named(self, question: Question, asked: Asked) -> str:
        """Return the name of the model that answers, if there is one of that name."""
        rule = self._rule(question)
        return asked.model if rule is None else rule.model

    def _rule(self, question: Question) -> QuestionRule | None:
        return None if question.name is None else self._settings.questions.get(question.name)

    def _reading_of(self, info: ModelInfo) -> Reading:
        """Return how a model's labels are read: as set for it, else for its family."""
        short = (info.local or info.name) == info.name
        return self._settings.reading_of(info.name, info.family, *((CASCADE,) if short else ()))

    def _by_labels(self, question: Question, asked: Asked, models: Iterable[ModelInfo]) -> Match | Unserved:
        cascades = [model for model in models if model.kind == CASCADE]
        labels = {model.name: frozenset(model.labels) for model in cascades}
        tried = [self._by_labels_of(model, question, asked) for model in cascades]
        found = [one for one in tried if isinstance(one, Match)]
        whole = [one for one in found if one.whole]
        for some in ([one for one in whole if one.meant], whole, found):
            if some and len({labels[one.model] for one in some}) == 1:
                return some[0]  # who was first keeps its questions
        if found:
            names = ", ".join(one.model for one in found[:8])
            return Unserved(
                f"its labels are those of several ({names}): name one by `model` or in the settings"
            )
        if len(tried) == 1:
            return tried[0]
        return Unserved(f"none of {len(tried)} families has all of its labels")

    def _by_labels_of(self, info: ModelInfo, question: Question, asked: Asked) -> Match | Unserved:
        """Return how a family answers by its labels, where whoever else would answer need not be asked."""
        found = _fit(question, asked, info, self._reading_of(info), in_order=False)
        if isinstance(found, Unserved):
            return found
        found.meant = info.instructions == instructions_in(question.raw)
        if self._alone or (found.whole and (found.meant or info.instructions is None)):
            return found
        return Unserved(f"it may not be the question of {info.name}: the settings must name it")


def _fit(
    question: Question, asked: Asked, info: ModelInfo, reading: Reading, *, in_order: bool = True
) -> Match | Unserved:
    """Return how a model answers a question, or why it cannot.

    Args:
        question: a choice, predicate or score.
        asked: the request that it is in.
        info: the model.
        reading: how its labels are read.
        in_order: whether a score's levels may stand for labels by their place alone.
    """
    if info.images and len(asked.images) != 1:
        return Unserved(f"{info.name} classifies one image, and the input has {len(asked.images)}")
    if not info.images and asked.images:
        return Unserved(f"{info.name} reads text alone, and the input has an image")
    labels = info.labels
    place = {label: row for row, label in enumerate(labels)}
    if question.kind == "predicate":
        yes = reading.yes_label if reading.yes_label is not None else _evident_yes(labels)
        if yes is None or yes not in place:
            return Unserved(
                f"which label of {info.name} is the yes must be in the settings (decisions.models)"
            )
        return Match(info.name, labels, np.array([place[yes]]), (), len(labels), info.images)
    names = [reading.labels.get(name, name) for name in map(_name, question.values)]
    missing = next((name for name in names if name not in place), None)
    levels = reading.levels
    if missing is not None and question.kind == "score" and levels is not None and in_order:
        if len(levels) != len(names):
            return Unserved(f"{info.name} has {len(levels)} levels, and the question {len(names)}")
        names = list(levels)
        missing = next((name for name in names if name not in place), None)
    if missing is not None:
        return Unserved(f"{info.name} has no label {missing[:60]!r}")
    if len(set(names)) != len(names):
        return Unserved(f"two of its choices are the same label of {info.name}")
    rows = np.array([place[name] for name in names])
    values = _values(question, names, reading)
    return Match(info.name, labels, rows, values, len(names), info.images)


def _name(value: Value) -> str:
    """Return how labels write a value: a boolean in lower case."""
    return value if isinstance(value, str) else str(value).lower()


def _evident_yes(labels: tuple[str, ...]) -> str | None:
    """Return the label of two that can only be the yes."""
    if len(labels) != 2:
        return None
    found = [label for label in labels if label.lower() in _EVIDENT_YES]
    return found[0] if len(found) == 1 else None


def _values(question: Question, names: list[str], reading: Reading) -> tuple[int, ...]:
    if question.kind != "score":
        return ()
    if reading.values is None or reading.levels is None or not set(names) <= set(reading.levels):
        return tuple(range(len(names)))
    return tuple(reading.values[reading.levels.index(name)] for name in names)
