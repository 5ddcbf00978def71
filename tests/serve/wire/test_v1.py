"""The simple JSON form."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.errors import BadRequest, RequestError, TooLarge
from serve.settings.limits import RequestLimits
from serve.types.messages import ClassifyResult
from serve.wire import v1
from serve.wire.schemas import ClassifyBody, ClassifyReply

LIMITS = RequestLimits(max_texts=4, max_characters=10)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
near_misses = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=4) | json_values,
        "model": st.sampled_from(["cascade", "linear"]) | json_values,
        "top_k": st.integers(-1, 5) | json_values,
        "deadline_ms": st.floats(-1, 100) | st.none() | json_values,
        "strange": json_values,
    },
)


def test_a_request_in_full() -> None:
    """Every field arrives where it belongs, the deadline in seconds."""
    body = b'{"inputs": ["a", ""], "model": "linear", "top_k": 3, "deadline_ms": 50}'
    call = v1.parse(body, LIMITS, 7.0)
    assert (call.request.model, call.request.texts, call.top_k) == ("linear", ["a", ""], 3)
    assert call.request.timeout_s == pytest.approx(0.05)
    assert call.request.arrived_at == 7.0


def test_the_defaults() -> None:
    """One text, and nothing else: the cascade, one class, no deadline."""
    call = v1.parse(b'{"inputs": "a"}', LIMITS, 0.0)
    assert (call.request.model, call.request.texts, call.request.timeout_s, call.top_k) == (
        "cascade",
        ["a"],
        None,
        1,
    )


@pytest.mark.parametrize(
    ("body", "problem", "words"),
    [
        (b"", BadRequest, "empty"),
        (b"not json", BadRequest, "not JSON"),
        (b"\xff\xfe", BadRequest, "not JSON"),
        (b'{"inputs": "\xff"}', BadRequest, "not JSON"),
        (b'{"inputs": "\\ud800"}', BadRequest, "not JSON"),
        (b"[1]", BadRequest, "JSON object"),
        (b"[" * 1000 + b"]" * 1000, BadRequest, "JSON object"),
        (b"[" * 100_000, BadRequest, "not JSON"),
        (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", BadRequest, "inputs"),
        (b"{}", BadRequest, "inputs"),
        (b'{"inputs": []}', BadRequest, "inputs"),
        (b'{"inputs": 7}', BadRequest, "inputs"),
        (b'{"inputs": ["a", null]}', BadRequest, r"inputs\[1\]"),
        (b'{"inputs": "aaaaaaaaaaa"}', TooLarge, "11 characters"),
        (b'{"inputs": ["a","a","a","a","a"]}', TooLarge, "5 texts"),
        (b'{"inputs": "a", "model": 1}', BadRequest, "model"),
        (b'{"inputs": "a", "top_k": 0}', BadRequest, "top_k"),
        (b'{"inputs": "a", "top_k": true}', BadRequest, "top_k"),
        (b'{"inputs": "a", "top_k": 1.0}', BadRequest, "top_k"),
        (b'{"inputs": "a", "deadline_ms": 0}', BadRequest, "deadline_ms"),
        (b'{"inputs": "a", "deadline_ms": -1}', BadRequest, "deadline_ms"),
        (b'{"inputs": "a", "deadline_ms": "soon"}', BadRequest, "deadline_ms"),
        (b'{"inputs": "a", "deadline_ms": NaN}', BadRequest, "not JSON"),
        (b'{"inputs": "a", "deadline_ms": 1e999}', BadRequest, "not JSON"),
        (b'{"inputs": "a", "modell": "x"}', BadRequest, "modell"),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else None,
)
def test_wrong_bodies_are_refused_by_name(body: bytes, problem: type[RequestError], words: str) -> None:
    """Each wrong body gets the error that fits, naming what is wrong."""
    with pytest.raises(problem, match=words):
        v1.parse(body, LIMITS, 0.0)


@given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
def test_no_body_breaks_the_parser(body: bytes) -> None:
    """Any bytes give a request or a RequestError, never anything else."""
    with contextlib.suppress(RequestError):
        assert v1.parse(body, LIMITS, 0.0).request.texts


@given(near_misses)
@example({"inputs": "a", "deadline_ms": 1e308})
def test_the_parser_takes_what_the_description_allows(body: dict[str, Any]) -> None:
    """Parser and published schema agree on every body that is within the limits."""
    try:
        raw = orjson.dumps(body)
        value = orjson.loads(raw)
    except (orjson.JSONEncodeError, orjson.JSONDecodeError):
        return
    try:
        v1.parse(raw, RequestLimits(), 0.0)
        taken = True
    except RequestError:
        taken = False
    try:
        described = ClassifyBody.model_validate(value)
        allowed = described.inputs != []
    except ValidationError:
        allowed = False
    assert taken == allowed


def result(n: int = 2) -> ClassifyResult:
    """Answers of two classes."""
    return ClassifyResult(
        model="cascade",
        labels=("no", "yes", "perhaps"),
        predicted=[1, 0][:n],
        confidence=[0.9, 0.8][:n],
        variant=["linear", "teacher"][:n],
        escalated=[False, True][:n],
        degraded=[False, False][:n],
        logits=np.array([[0.0, 4.0, 2.0], [5.0, 1.0, 0.0]], dtype=np.float32)[:n],
        temperatures=[1.0, 2.0][:n],
        policy_version="abc",
    )


def test_a_reply_says_in_which_gear_it_was_answered_where_there_are_any() -> None:
    """`gear` is beside the policy's version; a policy without gears leaves the key out."""
    plain, geared = result(), result()
    geared.gear = "overload-1"
    assert json.loads(v1.render(geared, 1).body)["gear"] == "overload-1"
    assert "gear" not in json.loads(v1.render(plain, 1).body)


def test_a_reply_says_per_text_who_answered() -> None:
    """The reply has the described form: a list of outputs, the model, the policy."""
    reply = v1.render(result(), 1)
    value = json.loads(reply.body)
    ClassifyReply.model_validate(value)
    assert value["outputs"][1] == {
        "label": "no",
        "confidence": 0.8,
        "variant": "teacher",
        "escalated": True,
        "degraded": False,
    }
    assert (value["model"], value["policy_version"]) == ("cascade", "abc")


def test_top_k_lists_the_surest_classes_first() -> None:
    """top_k above 1 adds the classes in falling order of calibrated probability, at most all of them."""
    outputs = json.loads(v1.render(result(), 9).body)["outputs"]
    assert [entry["label"] for entry in outputs[0]["top"]] == ["yes", "perhaps", "no"]
    assert sum(entry["confidence"] for entry in outputs[1]["top"]) == pytest.approx(1)
    ratio = outputs[1]["top"][0]["confidence"] / outputs[1]["top"][1]["confidence"]
    assert ratio == pytest.approx(np.exp((5.0 - 1.0) / 2.0))
