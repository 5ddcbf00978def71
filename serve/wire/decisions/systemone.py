"""POST /v1/systemone: the System One form, from a body to what is asked, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serve.settings.limits import RequestLimits
from serve.wire.common import parse_object
from serve.wire.decisions.asked import MOST_QUESTIONS, Asked, InvalidRequest, Question, Value, check_values
from serve.wire.decisions.bodies import all_objects, asks_for_own, body_with, own_fields, reply_with, told_in
from serve.wire.decisions.inputs import Unread, read_state

NO_USAGE: Mapping[str, Any] = {"input_tokens": 0, "output_tokens": 0}


def parse(body: bytes, limits: RequestLimits) -> Asked:
    """Read a body; fields that are not known are let pass. A state that is no text is read as its JSON.

    Raises:
        BadRequest: not JSON, or an InvalidRequest that names the field and what is wrong with it.
    """
    raw = parse_object(body)
    model = raw.get("model", "")
    if type(model) is not str:
        raise InvalidRequest("model must be a text", "model")
    text, unread = read_state(raw.get("state"), limits)
    if raw.get("images") and unread is None:
        unread = Unread("images are not read in this form: POST /v1/decisions takes them", "images")
    questions = raw.get("questions")
    if type(questions) is not dict or not 1 <= len(questions) <= MOST_QUESTIONS:
        raise InvalidRequest(f"questions must be an object with 1 to {MOST_QUESTIONS} of them", "questions")
    read = [_question(name, question) for name, question in questions.items()]
    timeout_s, sticky_key = own_fields(raw)
    return Asked(model, text, (), unread, read, raw, timeout_s, sticky_key, asks_for_own(raw))


def answer(question: Question, probabilities: Sequence[float], chosen: int, values: Sequence[int]) -> Any:
    """Return the answer to a question in this form; see `openai_form.answer`."""
    if question.kind == "predicate":
        return {"type": "noul", "noul": probabilities[0]}
    if question.kind == "choice":
        return {
            "type": "choice",
            "choice": question.values[chosen],
            "probabilities": dict(zip(question.values, probabilities, strict=True)),
            "confidence": probabilities[chosen],
        }
    levels = [str(value) for value in values]
    return {
        "type": "score",
        "score": sum(value * probability for value, probability in zip(values, probabilities, strict=True)),
        "legend": dict(zip(levels, question.values, strict=True)),
        "probabilities": dict(zip(levels, probabilities, strict=True)),
        "confidence": probabilities[chosen],
    }


def refusal(_: Question) -> Any:
    """Return what stands in place of an answer that nobody gives."""
    return {"type": "refusal"}


def render(
    asked: Asked,
    answers: Sequence[Any],
    usage: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the body of a reply; see `openai_form.render`."""
    named = {question.name: found for question, found in zip(asked.questions, answers, strict=True)}
    return reply_with(asked, named, usage or NO_USAGE, extra)


def part(asked: Asked, positions: Sequence[int]) -> bytes:
    """Return the body that asks some of the questions, with all else that was sent but our own fields.

    Raises:
        InvalidRequest: something in it is nested too deeply to be written again.
    """
    some = [asked.questions[position] for position in positions]
    return body_with(asked, {question.name: question.raw for question in some})


def place(question: Question, _: int) -> str:
    """Return where a question stands in its body."""
    name = question.name or ""
    return f"questions.{name[:80]}"


def answers_in(
    reply: bytes, questions: Sequence[Question]
) -> tuple[list[Any], Mapping[str, Any] | None] | None:
    """Return the answers in a reply to these questions, and its usage; None where it is no such reply."""
    answers, usage = told_in(reply)
    if type(answers) is not dict:
        return None
    found = [answers.get(question.name) for question in questions]
    return (found, usage) if all_objects(found) else None


def _question(name: str, raw: Any) -> Question:
    where = f"questions.{name[:80]}"
    if type(raw) is not dict:
        raise InvalidRequest(f"{where} must be an object", where)
    kind = raw.get("type")
    if type(kind) is not str:
        raise InvalidRequest(f"{where}.type must be a text", f"{where}.type")
    if kind == "noul":
        return Question("predicate", name, (), raw)
    if kind not in {"choice", "score"}:
        return Question("other", name, (), raw)
    at = f"{where}.criteria"
    criteria = raw.get("criteria")
    if kind == "choice" and type(criteria) is dict:
        return Question("choice", name, check_values(tuple(criteria), at, "choices"), raw)
    if type(criteria) is not list or not all(type(one) is str for one in criteria):
        words = "an object or a list of texts" if kind == "choice" else "a list of texts"
        raise InvalidRequest(f"{at} must be {words}", at)
    values: tuple[Value, ...] = tuple(criteria)
    return Question(
        "choice" if kind == "choice" else "score", name, check_values(values, at, "criteria"), raw
    )
