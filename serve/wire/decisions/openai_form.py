"""POST /v1/decisions: the form of OpenAI's Decisions API, from a body to what is asked, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serve.settings.limits import RequestLimits
from serve.wire.common import parse_object
from serve.wire.decisions.asked import MOST_QUESTIONS, Asked, InvalidRequest, Question, Value, check_values
from serve.wire.decisions.bodies import all_objects, asks_for_own, body_with, own_fields, reply_with, told_in
from serve.wire.decisions.inputs import read_input

NO_USAGE: Mapping[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}
"""Nothing that answers here is billed by the token."""


def parse(body: bytes, limits: RequestLimits) -> Asked:
    """Read a body; fields that are not known are let pass.

    Raises:
        BadRequest: not JSON, or an InvalidRequest that names the field and what is wrong with it.
    """
    raw = parse_object(body)
    model = raw.get("model")
    if type(model) is not str or not model:
        raise InvalidRequest("model must be a text", "model")
    text, images, unread = read_input(raw.get("input"), limits)
    questions = raw.get("questions")
    if type(questions) is not list or not 1 <= len(questions) <= MOST_QUESTIONS:
        raise InvalidRequest(f"questions must be a list of 1 to {MOST_QUESTIONS}", "questions")
    read = [_question(question, position) for position, question in enumerate(questions)]
    timeout_s, sticky_key = own_fields(raw)
    return Asked(model, text, images, unread, read, raw, timeout_s, sticky_key, asks_for_own(raw))


def answer(question: Question, probabilities: Sequence[float], chosen: int, values: Sequence[int]) -> Any:
    """Return the answer to a question in this form.

    Args:
        question: a choice, predicate or score.
        probabilities: of its values in order; of a predicate its yes alone.
        chosen: which value is the most probable.
        values: what each level of a score counts; empty for others.
    """
    if question.kind == "predicate":
        return {"type": "predicate", "name": question.name, "probability": probabilities[0]}
    if question.kind == "choice":
        return {
            "type": "choice",
            "name": question.name,
            "choice": question.values[chosen],
            "confidence": probabilities[chosen],
            "probabilities": [
                {"value": value, "probability": probability}
                for value, probability in zip(question.values, probabilities, strict=True)
            ],
        }
    return {
        "type": "score",
        "name": question.name,
        "score": sum(value * probability for value, probability in zip(values, probabilities, strict=True)),
        "confidence": probabilities[chosen],
        "probabilities": [
            {"label": label, "value": value, "probability": probability}
            for label, value, probability in zip(question.values, values, probabilities, strict=True)
        ],
    }


def refusal(question: Question) -> Any:
    """Return what stands in place of an answer that nobody gives."""
    return {"type": "refusal", "name": question.name}


def render(
    asked: Asked,
    answers: Sequence[Any],
    usage: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the body of a reply.

    Args:
        asked: what was asked.
        answers: one for each question, in order.
        usage: what was billed; None: nothing.
        extra: what only this gateway tells; clients of the form ignore it.
    """
    return reply_with(asked, answers, usage or NO_USAGE, extra)


def part(asked: Asked, positions: Sequence[int]) -> bytes:
    """Return the body that asks some of the questions, with all else that was sent but our own fields.

    Raises:
        InvalidRequest: something in it is nested too deeply to be written again.
    """
    return body_with(asked, [asked.questions[position].raw for position in positions])


def place(_: Question, position: int) -> str:
    """Return where a question stands in its body."""
    return f"questions[{position}]"


def answers_in(
    reply: bytes, questions: Sequence[Question]
) -> tuple[list[Any], Mapping[str, Any] | None] | None:
    """Return the answers in a reply to these questions, and its usage; None where it is no such reply."""
    answers, usage = told_in(reply)
    if type(answers) is not list or len(answers) != len(questions) or not all_objects(answers):
        return None
    return answers, usage


def _question(raw: Any, position: int) -> Question:
    where = f"questions[{position}]"
    if type(raw) is not dict:
        raise InvalidRequest(f"{where} must be an object", where)
    kind, name = raw.get("type"), raw.get("name")
    if type(kind) is not str:
        raise InvalidRequest(f"{where}.type must be a text", f"{where}.type")
    if name is not None and type(name) is not str:
        raise InvalidRequest(f"{where}.name must be a text", f"{where}.name")
    if kind not in {"choice", "predicate", "score"}:
        return Question("other", name, (), raw)
    if not _is_text(raw.get("instructions"), f"{where}.instructions"):
        return Question("other", name, (), raw)
    if kind == "predicate":
        return Question("predicate", name, (), raw)
    if kind == "choice":
        values = _values(raw.get("choices"), "value", f"{where}.choices", frozenset({str, bool}))
        return Question("choice", name, check_values(values, f"{where}.choices", "choices"), raw)
    values = _values(raw.get("levels"), "label", f"{where}.levels", frozenset({str}))
    return Question("score", name, check_values(values, f"{where}.levels", "levels"), raw)


def _is_text(instructions: Any, where: str) -> bool:
    """Return whether instructions are words alone; what they show or hold beside is for models that read.

    Raises InvalidRequest for neither a text nor a list of parts.
    """
    if type(instructions) is str:
        return True
    if type(instructions) is not list or not all(type(part) is dict for part in instructions):
        raise InvalidRequest(f"{where} must be a text or a list of parts", where)
    return all(part.get("type") == "input_text" for part in instructions)


def _values(given: Any, key: str, where: str, kinds: frozenset[type]) -> tuple[Value, ...]:
    """Return what a list of objects has under a key. Raises InvalidRequest for another type."""
    if type(given) is not list:
        raise InvalidRequest(f"{where} must be a list", where)
    try:
        values = tuple([one[key] for one in given])
    except (KeyError, TypeError):
        raise InvalidRequest(f"each of {where} must be an object with {key!r}", where) from None
    if not kinds.issuperset(map(type, values)):
        words = "a text or a boolean" if bool in kinds else "a text"
        raise InvalidRequest(f"{key!r} in {where} must be {words}", where)
    return values
