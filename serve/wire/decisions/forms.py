"""The two wire forms of decision endpoints under one face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serve.settings.limits import RequestLimits
from serve.wire.decisions import openai_form, systemone
from serve.wire.decisions.asked import Asked, Question
from serve.wire.decisions.errors import DECISIONS, SYSTEM_ONE

Found = tuple[list[Any], Mapping[str, Any] | None]
"""Answers, and what was billed."""


class Render(Protocol):
    """Makes the body of a reply; see `openai_form.render`."""

    def __call__(
        self,
        asked: Asked,
        answers: Sequence[Any],
        usage: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """A wire form.

    Attributes:
        path: that it is asked at.
        upstream: what follows the base URL of an upstream.
        parse, answer, refusal, render, part, answers_in, place: see `serve/wire/decisions/openai_form.py`.
    """

    path: str
    upstream: str
    parse: Callable[[bytes, RequestLimits], Asked]
    answer: Callable[[Question, Sequence[float], int, Sequence[int]], Any]
    refusal: Callable[[Question], Any]
    render: Render
    part: Callable[[Asked, Sequence[int]], bytes]
    answers_in: Callable[[bytes, Sequence[Question]], Found | None]
    place: Callable[[Question, int], str]


def _form(path: str, module: Any) -> Form:
    return Form(
        path, path.removeprefix("/v1"), module.parse, module.answer, module.refusal, module.render,
        module.part, module.answers_in, module.place,
    )  # fmt: skip


FORMS = {path: _form(path, module) for path, module in ((DECISIONS, openai_form), (SYSTEM_ONE, systemone))}
