"""`POST /v1/decisions` of a stand-in: every question about the one text, each over what it offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from contract.errors import BadRequest
from serve.settings.limits import RequestLimits
from serve.standin.answerer import Answerer
from serve.standin.chat import token_count
from serve.wire.decisions import openai_form
from serve.wire.decisions.asked import Asked, Question

LIMITS = RequestLimits()
YES = ("true", "yes", "1")
REFUSAL = "refusal"


def parse_decisions(body: bytes) -> Asked:
    """Return what is asked. Raises BadRequest, for images too."""
    asked = openai_form.parse(body, LIMITS)
    if asked.unread is not None:
        raise BadRequest(asked.unread.message)
    if asked.images:
        raise BadRequest("this model reads texts")
    return asked


def answer_decisions(answerer: Answerer, asked: Asked) -> tuple[bytes, Mapping[str, int]]:
    """Return the reply's body, and its usage in tokens.

    A question that the variant has no labels for is refused, as a large model may do with any; the others
    are answered.
    """
    answers = [_answer(answerer, asked.text, question) for question in asked.questions]
    said = token_count(asked.text) + sum(token_count(str(question.raw)) for question in asked.questions)
    usage = {"input_tokens": said, "output_tokens": len(answers), "total_tokens": said + len(answers)}
    told: dict[str, Any] = {**openai_form.NO_USAGE, **usage}
    body = openai_form.render(replace(asked, model=answerer.name), answers, told)
    return body, {"prompt_tokens": said, "completion_tokens": len(answers)}


def _answer(answerer: Answerer, text: str, question: Question) -> Any:
    refusal = {"type": REFUSAL, "name": question.name}
    if question.kind == "other":
        return refusal
    if question.kind == "predicate":
        yes = _yes_of(answerer.labels)
        if yes is None:
            return refusal
        p = answerer.probabilities(text, answerer.labels)[answerer.labels.index(yes)]
        return openai_form.answer(question, [p], 0, ())
    offered = [value if isinstance(value, str) else str(value).lower() for value in question.values]
    if not set(offered) & set(answerer.labels):
        return refusal
    known = answerer.probabilities(text, offered)
    chosen = max(range(len(known)), key=known.__getitem__)
    return openai_form.answer(question, known, chosen, range(len(known)))


def _yes_of(labels: tuple[str, ...]) -> str | None:
    """Return the label that means yes: one of the usual words, else the second of two."""
    if len(labels) != 2:
        return None
    return next((label for label in labels if label.lower() in YES), labels[1])
