"""The form of OpenAI's Decisions API: what is read, what is refused and where, and what comes back."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import RequestError, TooLarge
from serve.settings.limits import RequestLimits
from serve.wire.decisions import openai_form
from serve.wire.decisions.asked import Asked, InvalidRequest
from tests.serve.wire.test_v1 import json_values

LIMITS = RequestLimits(max_characters=40)
TOPIC = {"type": "choice", "name": "topic", "instructions": "?", "choices": [{"value": "a"}, {"value": "b"}]}
SPAM = {"type": "predicate", "instructions": "Is it spam?"}
MOOD = {"type": "score", "name": None, "instructions": "?", "levels": [{"label": "low"}, {"label": "high"}]}
INPUT_TEXT = {"type": "input_text"}
USER = {"role": "user"}
MANY = [{"value": str(number)} for number in range(256)]
ASK: dict[str, Any] = {"model": "m", "input": "a text", "questions": [TOPIC, SPAM, MOOD]}


def read(**changes: Any) -> Asked:
    """Parse the request above with some of its fields changed."""
    return openai_form.parse(json.dumps(ASK | changes).encode(), LIMITS)


def test_three_kinds_of_questions_are_read() -> None:
    """Names, kinds and values; a question keeps what it was sent as."""
    asked = read(deadline_ms=50, sticky_key="k", safety_identifier="u", strange=1)
    assert [(q.kind, q.name, q.values) for q in asked.questions] == [
        ("choice", "topic", ("a", "b")),
        ("predicate", None, ()),
        ("score", None, ("low", "high")),
    ]
    assert (asked.model, asked.text, asked.images, asked.unread) == ("m", "a text", (), None)
    assert (asked.timeout_s, asked.sticky_key, asked.own) == (0.05, b"k", True)
    assert [q.raw for q in asked.questions] == [TOPIC, SPAM, MOOD]


def test_a_boolean_and_a_text_are_two_choices() -> None:
    """True and "true" are distinct, as the form has it."""
    choices = [{"value": True}, {"value": "true"}, {"value": False}]
    asked = read(questions=[TOPIC | {"choices": choices}])
    assert asked.questions[0].values == (True, "true", False)


def test_what_is_not_known_here_may_be_known_upstream() -> None:
    """Another type of question is kept as it came."""
    new = {"type": "locate", "name": "n", "fields": ["x"]}
    question = read(questions=[new]).questions[0]
    assert (question.kind, question.name, question.raw) == ("other", "n", new)


@pytest.mark.parametrize(("kind", "read_as"), [("input_text", "predicate"), ("input_image", "other")])
def test_instructions_that_are_more_than_words_are_not_for_families(kind: str, read_as: str) -> None:
    """Words in parts are words; an image to compare with is for models that see it."""
    assert read(questions=[SPAM | {"instructions": [{"type": kind}]}]).questions[0].kind == read_as


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"questions": []}, "questions"),
        ({"questions": {"a": SPAM}}, "questions"),
        ({"questions": [SPAM] * 401}, "questions"),
        ({"questions": [SPAM, 7]}, "questions[1]"),
        ({"questions": [{"instructions": "?"}]}, "questions[0].type"),
        ({"questions": [SPAM | {"name": 7}]}, "questions[0].name"),
        ({"questions": [{"type": "predicate"}]}, "questions[0].instructions"),
        ({"questions": [SPAM | {"instructions": ["?"]}]}, "questions[0].instructions"),
        ({"input": [{"type": 7}]}, "input[0].type"),
        ({"questions": [TOPIC | {"choices": [{"value": "a"}]}]}, "questions[0].choices"),
        ({"questions": [TOPIC | {"choices": MANY}]}, "questions[0].choices"),
        ({"questions": [TOPIC | {"choices": [{"value": "a"}, {"value": "a"}]}]}, "questions[0].choices"),
        ({"questions": [TOPIC | {"choices": [{"value": "a"}, {"value": 1}]}]}, "questions[0].choices"),
        ({"questions": [TOPIC | {"choices": ["a", "b"]}]}, "questions[0].choices"),
        ({"questions": [MOOD | {"levels": [{"label": "a"}, {"label": True}]}]}, "questions[0].levels"),
        ({"questions": [MOOD | {"levels": "ab"}]}, "questions[0].levels"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": "soon"}, "deadline_ms"),
        ({"sticky_key": ""}, "sticky_key"),
    ],
)  # fmt: skip
def test_what_breaks_the_form_is_refused_and_the_place_is_named(changes: dict[str, Any], param: str) -> None:
    """`param` leads programs to the field, the message people."""
    with pytest.raises(InvalidRequest) as caught:
        read(**changes)
    assert caught.value.param == param
    assert param.partition("[")[0] in caught.value.message


def test_400_questions_and_255_choices_are_read() -> None:
    """The most that the form allows."""
    many = TOPIC | {"choices": [{"value": str(n)} for n in range(255)]}
    assert len(read(questions=[many] * 400).questions) == 400


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"role": "user", "content": "one"}], "one"),
        ([USER | {"content": "one"}, USER | {"type": "message", "content": "two"}], "one\n\ntwo"),
        ([USER | {"content": [INPUT_TEXT | {"text": "a"}, INPUT_TEXT | {"text": "b"}]}], "a\n\nb"),
        ([USER | {"content": [{"type": "input_json", "data": {"b": [1], "a": None}}]}], '{"b":[1],"a":null}'),
        ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}], "assistant: no"),
        ([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "system: s\n\nuser: u"),
        (
            [
                {"role": "user", "content": "u"},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "out"},
            ],
            "user: u\n\ncall: f({})\n\noutput: out",
        ),
    ],
)  # fmt: skip
def test_messages_become_one_text_by_the_rule(content: Any, text: str) -> None:
    """Users' words with a blank line between; who said what, where others speak too."""
    asked = openai_form.parse(json.dumps(ASK | {"input": content}).encode(), RequestLimits())
    assert asked.text == text


def test_images_are_kept_and_what_is_not_read_here_is_said() -> None:
    """A data URL is an image; an address on the web, a file and a voice are not read."""
    shown = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}
    asked = read(input=[{"role": "user", "content": [shown]}])
    assert (asked.text, asked.images, asked.unread) == ("", ("data:image/png;base64,AAAA",), None)
    for part in (
        {"type": "input_image", "image_url": "https://example.org/a.png"},
        {"type": "input_image", "file_id": "f"},
        {"type": "input_audio"},
    ):
        asked = read(input=[{"role": "user", "content": [part]}])
        assert isinstance(asked.unread, InvalidRequest)
        assert asked.unread.param is not None
        assert asked.unread.param.startswith("input[0].content[0]")
    assert isinstance(read(input=[{"type": "item_reference", "id": "x"}]).unread, InvalidRequest)
    assert isinstance(read(input="x" * 41).unread, TooLarge)


def test_answers_are_in_the_form() -> None:
    """Choice, predicate and score, with the mean of what the levels count."""
    choice, predicate, score = read().questions
    assert openai_form.answer(choice, [0.25, 0.75], 1, ()) == {
        "type": "choice", "name": "topic", "choice": "b", "confidence": 0.75,
        "probabilities": [{"value": "a", "probability": 0.25}, {"value": "b", "probability": 0.75}],
    }  # fmt: skip
    assert openai_form.answer(predicate, [0.25], 1, ()) == {
        "type": "predicate", "name": None, "probability": 0.25,
    }  # fmt: skip
    assert openai_form.answer(score, [0.25, 0.75], 1, (1, 5)) == {
        "type": "score", "name": None, "score": 4.0, "confidence": 0.75,
        "probabilities": [
            {"label": "low", "value": 1, "probability": 0.25},
            {"label": "high", "value": 5, "probability": 0.75},
        ],
    }  # fmt: skip


def test_a_part_of_a_request_has_all_but_what_only_this_gateway_knows() -> None:
    """The questions asked for, unchanged and in order, and every other field as it was sent."""
    asked = read(deadline_ms=5, sticky_key="k", prompt_cache_key="p")
    assert orjson.loads(openai_form.part(asked, [0, 2])) == {
        "model": "m", "input": "a text", "prompt_cache_key": "p", "questions": [TOPIC, MOOD],
    }  # fmt: skip


@pytest.mark.parametrize(
    "reply", [b"", b"[]", b"{}", b'{"answers": []}', b'{"answers": [1]}', b'{"answers": {"a": {}}}']
)
def test_a_reply_that_answers_something_else_is_none(reply: bytes) -> None:
    """One answer for each question, or nothing is taken from it."""
    assert openai_form.answers_in(reply, read().questions[:1]) is None


def test_answers_are_found_in_a_reply_of_ours() -> None:
    """What is rendered can be read again."""
    asked = read()
    answers = [{"type": "refusal", "name": None}] * 3
    reply = openai_form.render(asked, answers, None, {"request_id": "r"})
    assert openai_form.answers_in(reply, asked.questions) == (answers, dict(openai_form.NO_USAGE))
    assert orjson.loads(reply)["sluice"] == {"request_id": "r"}


near_misses = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("m") | json_values,
        "input": st.text()
        | st.lists(st.dictionaries(st.sampled_from(["role", "content", "type"]), json_values)),
        "questions": st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["choice", "predicate", "score"]) | json_values},
                optional={
                    "name": st.text() | json_values,
                    "instructions": st.text() | json_values,
                    "choices": st.lists(st.dictionaries(st.just("value"), json_values)) | json_values,
                    "levels": st.lists(st.dictionaries(st.just("label"), json_values)) | json_values,
                },
            ),
            max_size=3,
        )
        | json_values,
        "deadline_ms": json_values,
    },
)  # fmt: skip


@given(near_misses | json_values)
def test_any_json_is_read_or_refused_by_name(value: Any) -> None:
    """No body of JSON breaks the parser; what it reads can be asked in part."""
    with contextlib.suppress(RequestError):
        asked = openai_form.parse(json.dumps(value).encode(), LIMITS)
        assert orjson.loads(openai_form.part(asked, range(len(asked.questions))))["model"] == asked.model
