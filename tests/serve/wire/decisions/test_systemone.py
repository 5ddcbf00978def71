"""The System One form."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from serve.settings.limits import RequestLimits
from serve.wire.decisions import systemone
from serve.wire.decisions.asked import Asked, InvalidRequest

QUESTIONS: dict[str, Any] = {
    "topic": {"type": "choice", "instructions": "?", "criteria": {"a": "about a", "b": None}},
    "listed": {"type": "choice", "instructions": "?", "criteria": ["a", "b"]},
    "spam": {"type": "noul", "instructions": "?"},
    "mood": {"type": "score", "instructions": "?", "criteria": ["low", "high"]},
}


def read(**changes: Any) -> Asked:
    """Parse a request with these questions and some fields changed."""
    body = {"model": "m", "state": "a text", "questions": QUESTIONS} | changes
    return systemone.parse(json.dumps(body).encode(), RequestLimits())


def test_named_questions_are_read_in_order() -> None:
    """A noul is a predicate; criteria are choices or levels."""
    assert [(q.kind, q.name, q.values) for q in read().questions] == [
        ("choice", "topic", ("a", "b")),
        ("choice", "listed", ("a", "b")),
        ("predicate", "spam", ()),
        ("score", "mood", ("low", "high")),
    ]


def test_a_state_that_is_no_text_is_read_as_its_json() -> None:
    """Objects and lists, in the order in which they came."""
    assert read(state={"b": 1, "a": ["ü"]}).text == '{"b":1,"a":["ü"]}'
    assert read(images=["data:,"]).unread is not None


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"state": None}, "state"),
        ({"model": 7}, "model"),
        ({"questions": []}, "questions"),
        ({"questions": {}}, "questions"),
        ({"questions": {"q": 1}}, "questions.q"),
        ({"questions": {"q": {}}}, "questions.q.type"),
        ({"questions": {"q": {"type": "score", "criteria": {"a": 1, "b": 2}}}}, "questions.q.criteria"),
        ({"questions": {"q": {"type": "choice", "criteria": [1, 2]}}}, "questions.q.criteria"),
        ({"questions": {"q": {"type": "choice", "criteria": ["a", "a"]}}}, "questions.q.criteria"),
    ],
)
def test_what_breaks_the_form_is_refused_and_the_place_is_named(changes: dict[str, Any], param: str) -> None:
    """As in the other form."""
    with pytest.raises(InvalidRequest) as caught:
        read(**changes)
    assert caught.value.param == param


def test_replies_are_by_name() -> None:
    """Each kind as the form has it, and what is rendered can be read again, in part too."""
    asked = read()
    topic, listed, spam, mood = asked.questions
    answers = [
        systemone.answer(topic, [0.25, 0.75], 1, ()),
        systemone.answer(listed, [0.5, 0.5], 0, ()),
        systemone.answer(spam, [0.125], 1, ()),
        systemone.answer(mood, [0.25, 0.75], 1, (0, 1)),
    ]
    reply = orjson.loads(systemone.render(asked, answers))
    assert reply["answers"] == {
        "topic": {
            "type": "choice", "choice": "b", "probabilities": {"a": 0.25, "b": 0.75}, "confidence": 0.75,
        },
        "listed": {"type": "choice", "choice": "a", "probabilities": {"a": 0.5, "b": 0.5}, "confidence": 0.5},
        "spam": {"type": "noul", "noul": 0.125},
        "mood": {
            "type": "score", "score": 0.75, "legend": {"0": "low", "1": "high"},
            "probabilities": {"0": 0.25, "1": 0.75}, "confidence": 0.75,
        },
    }  # fmt: skip
    found = systemone.answers_in(orjson.dumps(reply), [mood, topic])
    assert found is not None
    assert found[0] == [reply["answers"]["mood"], reply["answers"]["topic"]]
    assert systemone.answers_in(b'{"answers": {}}', [mood]) is None
    assert orjson.loads(systemone.part(asked, [2]))["questions"] == {"spam": QUESTIONS["spam"]}
