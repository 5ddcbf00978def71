"""What is asked of a model behind HTTP, and what its replies are taken to say."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from contract.errors import InputError, RemoteFailure
from contract.remote import RemoteModel
from runtime.remote.answered import agreed, joined, logits_of
from runtime.remote.forms import form_of
from runtime.remote.forms.said import Said, led_by
from runtime.remote.forms.tokens import Token, label_probabilities
from tests.support.known_model import asking

LABELS = ("car", "cart", "sport")
URL = "http://127.0.0.1:9"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def choice(value: Any, probabilities: Any = None, **more: Any) -> dict[str, Any]:
    """A reply of a decision endpoint."""
    answer = {"type": "choice", "name": "label", "choice": value, "probabilities": probabilities} | more
    return {"answers": [answer], "model": "m"}


def chat_reply(content: str | None, logprobs: Any = None, **message: Any) -> dict[str, Any]:
    """A reply of a chat endpoint."""
    return {"choices": [{"message": {"content": content} | message, "logprobs": logprobs}]}


def test_a_decision_is_asked_as_one_choice_over_the_labels_as_they_are_called_there() -> None:
    """Names and descriptions go into the choices, the instructions into the question."""
    model = asking(URL, labels={"car": {"says": "Auto", "description": "four wheels"}}, instructions="Which?")
    body = form_of(model, LABELS).body(["a text"])
    assert body["input"] == "a text"
    (question,) = body["questions"]
    assert question["instructions"] == "Which?"
    assert question["choices"] == [
        {"value": "Auto", "description": "four wheels"}, {"value": "cart"}, {"value": "sport"},
    ]  # fmt: skip


def test_an_image_goes_as_a_data_url_of_its_kind() -> None:
    """A PNG in base64 becomes an `input_image`, and an `image_url` for a chat model."""
    image = "iVBORw0KGgo="
    decided = form_of(asking(URL, inputs="image"), LABELS).body([image])["input"][0]["content"][0]
    assert decided == {"type": "input_image", "image_url": f"data:image/png;base64,{image}"}
    said = form_of(asking(URL, "chat", inputs="image"), LABELS).body([image])["messages"][-1]["content"][0]
    assert said["image_url"]["url"] == f"data:image/png;base64,{image}"


def test_what_a_decision_names_leads_its_probabilities() -> None:
    """Values that were not offered are left out, the rest sums to 1, and the choice is the likeliest."""
    told = [
        {"value": "car", "probability": 0.6},
        {"value": "sport", "probability": 0.2},
        {"value": "x", "probability": 9},
    ]
    said = form_of(asking(URL), LABELS).read(choice("sport", told), 1)
    assert said.labels.tolist() == [2]
    assert said.probabilities is not None
    assert said.probabilities[0] == pytest.approx([0.25, 0.0, 0.75])


def test_a_confidence_alone_is_shared_out_and_none_at_all_is_none() -> None:
    """Without a list the confidence is the choice's probability; without either nothing is known."""
    form = form_of(asking(URL), LABELS)
    said = form.read(choice("car", confidence=0.8), 1)
    assert said.probabilities is not None
    assert said.probabilities[0] == pytest.approx([0.8, 0.1, 0.1])
    assert form.read(choice("car"), 1).probabilities is None


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"answers": [{"type": "refusal", "name": "label"}]}, "declined"),
        (choice("lorry"), "declined"),
        (choice(True), "unreadable"),
        (choice("car", [{"value": "car", "probability": -1}]), "unreadable"),
        (choice("car", [{"value": "car", "probability": math.nan}]), "unreadable"),
        (choice("car", confidence=1.5), "unreadable"),
        ({"answers": []}, "unreadable"),
        ({"error": "x"}, "unreadable"),
        ([], "unreadable"),
    ],
)
def test_a_decision_that_cannot_be_read_says_how(reply: Any, kind: str) -> None:
    """Refusals and strangers are declined; what is not in the form is unreadable."""
    with pytest.raises(RemoteFailure) as found:
        form_of(asking(URL), LABELS).read(reply, 1)
    assert found.value.kind == kind


@given(reply=json_values, form=st.sampled_from(["decisions", "chat", "oip"]), data=st.data())
def test_any_json_is_read_or_refused_in_one_way(reply: Any, form: str, data: st.DataObject) -> None:
    """Whatever a server replies, the reader gives probabilities that sum to 1 or one kind of failure."""
    constrain = data.draw(st.sampled_from(["schema", "tool", "none"]))
    wrapped = data.draw(
        st.sampled_from(
            [
                reply,
                {"answers": [reply]},
                {"choices": [{"message": reply}]},
                {"choices": [{"message": {"content": json.dumps(reply)}, "logprobs": reply}]},
                {"outputs": [{"name": "probabilities", "data": reply}]},
            ]
        )
    )
    try:
        said = form_of(asking(URL, form, chat={"constrain": constrain}), LABELS).read(wrapped, 1)
    except RemoteFailure as failure:
        event(failure.kind)
        if failure.kind not in {"unreadable", "declined"}:
            raise
        return
    assert 0 <= said.labels[0] < len(LABELS)
    if said.probabilities is not None:
        assert said.probabilities.sum() == pytest.approx(1)


def test_a_chat_model_is_held_to_the_labels_by_a_schema_or_a_tool() -> None:
    """The enum of the schema is the label set, in the response format or in the tool's parameters."""
    body = form_of(asking(URL, "chat"), LABELS).body(["a text"])
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == list(LABELS)
    assert (body["temperature"], body["logprobs"]) == (0.0, True)
    tool = form_of(asking(URL, "chat", chat={"constrain": "tool", "logprobs": False}), LABELS).body(
        ["a text"]
    )
    assert tool["tools"][0]["function"]["parameters"] == schema
    assert tool["tool_choice"]["function"]["name"] == tool["tools"][0]["function"]["name"]
    assert "logprobs" not in tool


def test_further_keys_of_a_chat_go_along_and_null_takes_one_out() -> None:
    """`extra` sets what a server wants, and leaves out what it will not have."""
    extra = {"max_completion_tokens": 20, "temperature": None}
    body = form_of(asking(URL, "chat", chat={"extra": extra}), LABELS).body(["a text"])
    assert body["max_completion_tokens"] == 20
    assert "temperature" not in body


@pytest.mark.parametrize(
    ("constrain", "reply"),
    [
        ("schema", chat_reply('{"label": "cart"}')),
        ("schema", chat_reply('```json\n{"label": "cart"}\n```')),
        ("none", chat_reply(" Cart.\n")),
        ("none", chat_reply('{"label": "cart"}')),
        ("tool", chat_reply(None, tool_calls=[{"function": {"arguments": '{"label": "cart"}'}}])),
    ],
)
def test_a_label_is_found_where_each_constraint_puts_it(constrain: str, reply: Any) -> None:
    """JSON, JSON between fences, a bare word, and the arguments of a tool all say the label."""
    said = form_of(asking(URL, "chat", chat={"constrain": constrain}), LABELS).read(reply, 1)
    assert said.labels.tolist() == [1]
    assert said.probabilities is None


@pytest.mark.parametrize(
    ("constrain", "reply", "kind"),
    [
        ("schema", chat_reply(None, refusal="no"), "declined"),
        ("schema", chat_reply('{"label": "lorry"}'), "declined"),
        ("schema", chat_reply("car"), "unreadable"),
        ("schema", chat_reply('{"class": "car"}'), "unreadable"),
        ("none", chat_reply("I would say a car"), "declined"),
        ("tool", chat_reply("car"), "declined"),
        ("tool", chat_reply(None, tool_calls=[{"function": {"arguments": "car"}}]), "unreadable"),
        ("schema", {"choices": []}, "unreadable"),
    ],
)
def test_a_chat_without_an_offered_label_says_how(constrain: str, reply: Any, kind: str) -> None:
    """A refusal, another label and prose are declined; a broken form is unreadable."""
    with pytest.raises(RemoteFailure) as found:
        form_of(asking(URL, "chat", chat={"constrain": constrain}), LABELS).read(reply, 1)
    assert found.value.kind == kind


def told(tokens: list[tuple[str, dict[str, float]]]) -> dict[str, Any]:
    """Log-probabilities of tokens, each with its alternatives."""
    return {
        "content": [
            {
                "token": text,
                "logprob": math.log(others[text]),
                "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in others.items()],
            }
            for text, others in tokens
        ]
    }


def test_log_probabilities_are_divided_along_the_tokens() -> None:
    """What goes on with another label gives it its share; what begins none is left out (by hand)."""
    tokens = told(
        [
            ('{"', {'{"': 1.0}),
            ('label": "', {'label": "': 1.0}),
            ("car", {"car": 0.6, "sp": 0.2, "lorry": 0.2}),
            ('"}', {'"}': 0.3, 't"': 0.1}),
        ]
    )
    said = form_of(asking(URL, "chat"), LABELS).read(chat_reply('{"label": "car"}', tokens), 1)
    assert said.probabilities is not None
    # 0.75 begins with "car": 3 of 4 parts end there, 1 goes on to "cart"; 0.25 begins "sport".
    assert said.probabilities[0] == pytest.approx([0.75 * 0.75, 0.75 * 0.25, 0.25])


def test_an_answer_that_begins_a_longer_label_shares_what_nobody_knows() -> None:
    """Whether a plain answer ends there or goes on is not told: half and half; one token is one label."""
    form = form_of(asking(URL, "chat", chat={"constrain": "none"}), LABELS)
    said = form.read(chat_reply("car", told([("car", {"car": 0.96, "sport": 0.04})])), 1)
    assert said.probabilities is not None
    assert said.probabilities[0] == pytest.approx([0.48, 0.48, 0.04], abs=1e-4)
    said = form.read(chat_reply("cart", told([("cart", {"cart": 0.96, "sport": 0.04})])), 1)
    assert said.probabilities is not None
    assert said.probabilities[0] == pytest.approx([0.0, 0.96, 0.04])
    said = form.read(chat_reply("car.", told([("car", {"car": 1.0}), (".", {".": 0.75, "t": 0.25})])), 1)
    assert said.probabilities is not None
    assert said.probabilities[0] == pytest.approx([0.75, 0.25, 0.0])


def test_a_label_that_is_mentioned_again_is_read_where_it_is_answered() -> None:
    """The place is that of the key, not of a reason that the model adds."""
    pieces = ['{"label": "', "sport", '", "reason": "about ', "sport", '"}']
    tokens = [(one, {one: 1.0}) for one in pieces]
    tokens[1] = ("sport", {"sport": 0.6, "car": 0.4})
    said = form_of(asking(URL, "chat"), LABELS).read(chat_reply("".join(pieces), told(tokens)), 1)
    assert said.probabilities is not None
    assert said.probabilities[0][2] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "logprobs", [None, {}, {"content": []}, {"content": [{"token": "x", "logprob": -1}]}]
)
def test_tokens_that_do_not_spell_the_answer_are_no_probabilities(logprobs: Any) -> None:
    """Nothing is known where the log-probabilities are missing or of another text."""
    said = form_of(asking(URL, "chat"), LABELS).read(chat_reply('{"label": "car"}', logprobs), 1)
    assert said.probabilities is None


@given(
    names=st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=6, unique=True),
    data=st.data(),
)
def test_label_probabilities_are_a_distribution_over_the_labels(
    names: list[str], data: st.DataObject
) -> None:
    """Cut into any tokens with any alternatives, the labels' probabilities are there and sum to 1."""
    answer = data.draw(st.integers(0, len(names) - 1))
    written = [f'{name}"' for name in names]
    whole = f'{{"label": "{written[answer]}}}'
    start = len('{"label": "')
    tokens, at = [], 0
    while at < len(whole):
        end = data.draw(st.integers(at + 1, len(whole)))
        others = data.draw(st.dictionaries(st.text('abc"', max_size=3), st.floats(0.01, 1), max_size=4))
        tokens.append(Token(whole[at:end], others | {whole[at:end]: data.draw(st.floats(0.01, 1))}))
        at = end
    found = label_probabilities(tokens, start, written, answer)
    assert found is not None
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()


def test_an_inference_server_is_asked_for_many_and_its_columns_are_put_in_order() -> None:
    """Texts go as one BYTES tensor; the columns come back in the family's order."""
    model = asking(URL, "oip", oip={"columns": ["sport", "car", "cart"], "shape": "[N,1]"})
    form = form_of(model, LABELS)
    assert form.path == "/v2/models/known/infer"
    (asked,) = form.body(["a", "b"])["inputs"]
    assert (asked["shape"], asked["data"]) == ([2, 1], ["a", "b"])
    data = [0.1, 0.7, 0.2, 0.5, 0.2, 0.3]
    said = form.read({"outputs": [{"name": "probabilities", "data": data}]}, 2)
    assert said.probabilities is not None
    assert said.probabilities == pytest.approx(np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]]))
    assert said.labels.tolist() == [0, 2]


def test_logits_and_bare_labels_of_an_inference_server_are_read() -> None:
    """Logits go through a softmax; labels come with a confidence or without."""
    logits = form_of(asking(URL, "oip", oip={"values": "logits", "output": "z"}), LABELS)
    said = logits.read({"outputs": [{"name": "z", "data": [[0.0, 1.0, 2.0]]}]}, 1)
    assert said.probabilities is not None
    assert said.probabilities[0] == pytest.approx(np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum())
    named = {"values": "label", "output": "label", "confidence": "confidence"}
    outputs = [{"name": "label", "data": ["cart"]}, {"name": "confidence", "data": [0.5]}]
    said = form_of(asking(URL, "oip", oip=named), LABELS).read({"outputs": outputs}, 1)
    assert said.labels.tolist() == [1]
    assert said.probabilities is not None
    assert said.probabilities[0] == pytest.approx([0.25, 0.5, 0.25])


@pytest.mark.parametrize("data", [[1.0], [1.0, 2.0, math.inf], ["a", "b", "c"], [[1.0], 2.0, 3.0], None])
def test_a_tensor_of_another_shape_or_kind_is_refused(data: Any) -> None:
    """Three finite numbers are wanted for one text of three labels."""
    with pytest.raises(RemoteFailure, match="not in the form"):
        form_of(asking(URL, "oip"), LABELS).read({"outputs": [{"name": "probabilities", "data": data}]}, 1)


MORE = math.nextafter(0.5, 1.0)


@pytest.mark.parametrize("row", [[0.5, 0.5], [0.5, MORE], [MORE, 0.5]])
def test_of_near_equals_the_answer_leads(row: list[float]) -> None:
    """What float64 tells apart and float32 does not goes to the label that was named, too."""
    for label in (0, 1):
        logits = logits_of(np.array([label]), led_by(label, np.array(row))[None, :], 2)
        assert int(logits[0].argmax()) == label


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda row: sum(row) > 1e-3), st.data())
def test_the_answer_leads_in_float32_too(row: list[float], data: st.DataObject) -> None:
    """Whatever the probabilities, the label that was named is the argmax of the logits made from them."""
    label = data.draw(st.integers(0, len(row) - 1))
    found = led_by(label, np.array(row))
    assert found.sum() == pytest.approx(1)
    assert int(logits_of(np.array([label]), found[None, :], len(row))[0].argmax()) == label


def test_repeated_answers_agree_by_their_shares() -> None:
    """Two of three say 1: that is the answer, two thirds sure; told probabilities are averaged."""
    votes = [Said(np.array([label]), None, 10, 1) for label in (1, 0, 1)]
    said = agreed(votes, 3)
    assert said.labels.tolist() == [1]
    assert said.probabilities is not None
    assert said.probabilities[0] == pytest.approx([1 / 3, 2 / 3, 0])
    assert (said.tokens_in, said.tokens_out) == (30, 3)
    rows = [Said(np.array([0]), np.array([[p, 1 - p]])) for p in (0.9, 0.7)]
    mean = agreed(rows, 2).probabilities
    assert mean is not None
    assert mean[0] == pytest.approx([0.8, 0.2])


def test_parts_are_joined_in_order() -> None:
    """Texts of several replies come one after the other; one without probabilities counts as sure."""
    said = joined([Said(np.array([1]), None), Said(np.array([0]), np.array([[0.6, 0.4]]))], 2)
    assert said.labels.tolist() == [1, 0]
    assert said.probabilities is not None
    assert said.probabilities == pytest.approx(np.array([[0.0, 1.0], [0.6, 0.4]]))


def test_more_labels_than_a_decision_takes_are_refused() -> None:
    """A choice has 255 values at most."""
    with pytest.raises(InputError, match="255"):
        form_of(asking(URL), tuple(map(str, range(256))))


def test_a_record_of_strangers_or_of_one_name_twice_does_not_fit() -> None:
    """Labels of the record are the family's, and called differently there."""
    with pytest.raises(InputError, match="lorry"):
        form_of(asking(URL, labels={"lorry": "big"}), LABELS)
    model: RemoteModel = asking(URL, labels={"car": {"says": "cart"}})
    with pytest.raises(InputError, match="two labels"):
        form_of(model, LABELS)
