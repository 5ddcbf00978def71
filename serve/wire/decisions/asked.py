"""What a decision request asks, whichever of the wire forms it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from contract.errors import BadRequest, RequestError

Kind = Literal["choice", "predicate", "score", "other"]
Value = str | bool
"""Of a choice: a text and a boolean are distinct, also where they read the same."""

MOST_QUESTIONS = 400
FEWEST_CHOICES = 2
MOST_CHOICES = 255


class InvalidRequest(BadRequest):
    """A decision request that breaks a rule of its form, or asks what is not answered here.

    Attributes:
        param: where in the body, such as `questions[0].choices`.
        code: a word for programs; None where there is none.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        self.param = param
        self.code = code
        super().__init__(message)


@dataclass(slots=True, eq=False)
class Question:
    """One question.

    Attributes:
        kind: `other` for a type that is not known here, and where the instructions are more than words.
        name: as given; None where it has none.
        values: the values of a choice, the labels of a score's levels from the lowest on; empty for others.
        raw: as it was sent.
    """

    kind: Kind
    name: str | None
    values: tuple[Value, ...]
    raw: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Asked:
    """A decision request.

    Attributes:
        model: as given.
        text: what the input says, by the rule of `serve/wire/decisions/inputs.py`; empty where it only shows.
        images: data URLs.
        unread: why nothing here can answer about this input; None where something may.
        questions: in order.
        raw: the body as an object.
        timeout_s: seconds that the client is ready to wait.
        sticky_key: see ClassifyRequest.
        own: whether the body has fields that only this gateway knows.
    """

    model: str
    text: str
    images: tuple[str, ...]
    unread: RequestError | None
    questions: list[Question]
    raw: dict[str, Any]
    timeout_s: float | None
    sticky_key: bytes
    own: bool


def instructions_in(raw: Mapping[str, Any]) -> str:
    """Return the instructions of a question, a blank line between parts; empty where they are no words."""
    found = raw.get("instructions")
    if type(found) is str:
        return found
    if type(found) is not list:
        return ""
    return "\n\n".join(str(part.get("text", "")) for part in found if type(part) is dict)


def check_values(values: tuple[Any, ...], where: str, what: str) -> tuple[Value, ...]:
    """Return the values of a choice or the labels of levels once they are as many and distinct as must be.

    Args:
        values: texts or booleans.
        where: in the body.
        what: they are called.

    Raises:
        InvalidRequest: too few, too many, or two that are equal.
    """
    if not FEWEST_CHOICES <= len(values) <= MOST_CHOICES:
        raise InvalidRequest(
            f"{where} must hold {FEWEST_CHOICES} to {MOST_CHOICES} {what}, not {len(values)}", where
        )
    if len(set(values)) != len(values):
        twice = next(value for at, value in enumerate(values) if value in values[:at])
        raise InvalidRequest(f"{where} has {str(twice)[:60]!r} twice", where)
    return values
