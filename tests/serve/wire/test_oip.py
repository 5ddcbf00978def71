"""The Open Inference Protocol, JSON and binary."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import BadRequest, RequestError, TooLarge
from serve.settings.limits import RequestLimits
from serve.types.messages import ClassifyResult, ModelInfo
from serve.wire import oip, oip_binary
from serve.wire.schemas import InferBody, InferReply, ModelMetadata

LIMITS = RequestLimits(max_texts=4, max_characters=10)


def tensor(**change: Any) -> dict[str, Any]:
    """A correct input tensor with changes; a value of ... takes the key out."""
    whole = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]} | change
    return {key: value for key, value in whole.items() if value is not ...}


def parse(value: Any, model: str = "cascade") -> oip.InferCall:
    """Parse a JSON request."""
    return oip.parse(json.dumps(value).encode(), None, model, LIMITS, 0.0)


def parse_binary(head: Any, tail: bytes, stated: bytes | None = None) -> oip.InferCall:
    """Parse a request with bytes behind the JSON."""
    raw = json.dumps(head).encode()
    return oip.parse(raw + tail, stated or b"%d" % len(raw), "linear", LIMITS, 0.0)


def binary(texts: list[bytes]) -> bytes:
    """A BYTES tensor."""
    return b"".join(len(t).to_bytes(4, "little") + t for t in texts)


def test_a_json_request_in_full() -> None:
    """Texts, id, timeout in microseconds and the outputs asked for, in their order."""
    call = parse(
        {
            "id": "7",
            "parameters": {"timeout": 50_000, "priority": 1},
            "inputs": [tensor()],
            "outputs": [{"name": "variant"}, {"name": "label", "parameters": {"binary_data": True}}],
        }
    )
    assert call.request.texts == ["a", "b"]
    assert call.request.timeout_s == pytest.approx(0.05)
    assert call.request.priority == 1
    assert call.id == "7"
    assert call.outputs == (("variant", False), ("label", True))


@pytest.mark.parametrize("data", [["a", "b"], [["a"], ["b"]]])
def test_a_column_may_be_flat_or_nested(data: Any) -> None:
    """[N] and [N, 1] are the same N texts, flat or one list per text."""
    assert parse({"inputs": [tensor(shape=[2, 1], data=data)]}).request.texts == ["a", "b"]


def test_texts_in_base64_are_unpacked_where_the_tensor_says_so() -> None:
    """MLServer's codec names it; bytes that are no text, such as images, stay as they came."""
    image = base64.b64encode(b"\x89PNG").decode()
    packed = [base64.b64encode("é".encode()).decode(), image]
    says = {"content_type": "base64"}
    assert parse({"inputs": [tensor(data=packed, parameters=says)]}).request.texts == ["é", image]
    assert parse({"inputs": [tensor(data=packed)]}).request.texts == packed
    with pytest.raises(BadRequest, match=r"data\[0\] is not base64"):
        parse({"inputs": [tensor(data=["é", image], parameters=says)]})


def test_without_outputs_a_model_gives_all_it_offers() -> None:
    """Variants add probabilities; binary_data_output sets the form of all."""
    assert [name for name, _ in parse({"inputs": [tensor()]}).outputs] == list(oip.CASCADE_OUTPUTS)
    call = parse({"inputs": [tensor()], "parameters": {"binary_data_output": True}}, "linear")
    assert call.outputs == tuple((name, True) for name in oip.VARIANT_OUTPUTS)


@pytest.mark.parametrize(("asked", "level"), [(0, 5), (1, 1), (9, 9), (1000, 9)])
def test_priorities_are_those_of_triton(asked: int, level: int) -> None:
    """1 is the highest, 0 the default, and what is beyond the lowest is the lowest."""
    assert parse({"inputs": [tensor()], "parameters": {"priority": asked}}).request.priority == level


def test_the_parameter_comes_before_the_header() -> None:
    """A priority in the body stands where headers ask for another; without one theirs does."""
    body = json.dumps({"inputs": [tensor()], "parameters": {"priority": 2}}).encode()
    assert oip.parse(body, None, "cascade", LIMITS, 0.0, 7).request.priority == 2
    plain = json.dumps({"inputs": [tensor()]}).encode()
    assert oip.parse(plain, None, "cascade", LIMITS, 0.0, 7).request.priority == 7


def test_a_timeout_of_zero_is_none() -> None:
    """As in Triton, 0 asks for no deadline."""
    assert parse({"inputs": [tensor()], "parameters": {"timeout": 0}}).request.timeout_s is None


@pytest.mark.parametrize(
    ("request_", "problem", "words"),
    [
        ([], BadRequest, "JSON object"),
        ({}, BadRequest, "inputs"),
        ({"inputs": []}, BadRequest, "inputs"),
        ({"inputs": [tensor(), tensor()]}, BadRequest, "one tensor"),
        ({"inputs": [1]}, BadRequest, "inputs"),
        ({"inputs": [tensor(name="image")]}, BadRequest, "'text'"),
        ({"inputs": [tensor(datatype="FP32")]}, BadRequest, "BYTES"),
        ({"inputs": [tensor(shape=...)]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[1])]}, BadRequest, "2"),
        ({"inputs": [tensor(shape=[3])]}, BadRequest, "3"),
        ({"inputs": [tensor(shape=[0], data=[])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[-1])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[-2, -1])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[1, 2])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[2, 1, 1])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[2.0])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[True, 1])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[2**62, 2**62])]}, BadRequest, "shape"),
        ({"inputs": [tensor(shape=[2**62, 1])]}, TooLarge, "texts"),
        ({"inputs": [tensor(shape=[2**70])]}, BadRequest, "shape"),
        ({"inputs": [tensor(data=...)]}, BadRequest, "data"),
        ({"inputs": [tensor(data="ab")]}, BadRequest, "data"),
        ({"inputs": [tensor(data=["a", 1])]}, BadRequest, r"data\[1\]"),
        ({"inputs": [tensor(data=[["a", "b"]])]}, BadRequest, "data"),
        ({"inputs": [tensor(data=[["a"], "b"])]}, BadRequest, "data"),
        ({"inputs": [tensor(data=["a", "b" * 11])]}, TooLarge, "11 characters"),
        ({"inputs": [tensor(parameters=[1])]}, BadRequest, "parameters"),
        ({"inputs": [tensor(parameters={"binary_data_size": 3})]}, BadRequest, "not both"),
        ({"inputs": [tensor(data=..., parameters={"binary_data_size": 3})]}, BadRequest, "binary_data_size"),
        ({"inputs": [tensor()], "id": 7}, BadRequest, "id"),
        ({"inputs": [tensor()], "parameters": 7}, BadRequest, "parameters"),
        ({"inputs": [tensor()], "parameters": {"timeout": "1"}}, BadRequest, "timeout"),
        ({"inputs": [tensor()], "parameters": {"timeout": -1}}, BadRequest, "timeout"),
        ({"inputs": [tensor()], "parameters": {"priority": "1"}}, BadRequest, "priority"),
        ({"inputs": [tensor()], "parameters": {"priority": True}}, BadRequest, "priority"),
        ({"inputs": [tensor()], "parameters": {"priority": -1}}, BadRequest, "priority"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, BadRequest, "binary_data_output"),
        ({"inputs": [tensor()], "outputs": 1}, BadRequest, "outputs"),
        ({"inputs": [tensor()], "outputs": [1]}, BadRequest, "outputs"),
        ({"inputs": [tensor()], "outputs": [{"name": "logits"}]}, BadRequest, "label, confidence"),
        ({"inputs": [tensor()], "outputs": [{"name": "probabilities"}]}, BadRequest, "label, confidence"),
        ({"inputs": [tensor()], "outputs": [{"name": ["label"]}]}, BadRequest, "outputs"),
        ({"inputs": [tensor()], "outputs": [{"name": "label"}] * 2}, BadRequest, "twice"),
        (
            {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            BadRequest,
            "classification",
        ),
    ],
)
def test_wrong_requests_are_refused_by_name(request_: Any, problem: type[RequestError], words: str) -> None:
    """Each wrong request gets the error that fits, naming what is wrong."""
    with pytest.raises(problem, match=words):
        parse(request_)


odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, -1, 1.5, "", "text", [], {}, [1], ["a"], [["a"]], True, 2**70]
)
near_misses = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.just("text") | odd,
                    "shape": st.sampled_from([[1], [1, 1], [2]]) | odd,
                    "datatype": st.just("BYTES") | odd,
                },
                optional={"data": st.sampled_from([["a"], [["a"]]]) | odd, "parameters": odd, "more": odd},
            ),
            min_size=1,
            max_size=2,
        )
    },
    optional={
        "id": st.just("7") | odd,
        "parameters": st.fixed_dictionaries({}, optional={"timeout": st.just(5) | odd, "x": odd}) | odd,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("label") | odd}), max_size=2) | odd,
        "more": odd,
    },
)


@given(near_misses)
@settings(max_examples=300)
def test_whatever_the_parser_takes_the_description_allows(body: dict[str, Any]) -> None:
    """The parser may be stricter than the published schema, never looser."""
    try:
        parse(body)
    except RequestError:
        return
    assert InferBody.model_validate(body)


def test_texts_in_binary() -> None:
    """Elements with their lengths, any UTF-8, the empty text too."""
    raw = binary(["é".encode(), b""])
    head = {"inputs": [tensor(data=..., parameters={"binary_data_size": len(raw)})]}
    assert parse_binary(head, raw).request.texts == ["é", ""]


@pytest.mark.parametrize(
    ("raw", "stated_size", "problem", "words"),
    [
        (binary([b"a", b"b"]), 9, BadRequest, "binary_data_size"),
        (binary([b"a", b"b"]), -1, BadRequest, "binary_data_size"),
        (binary([b"a", b"b"]), 10.0, BadRequest, "binary_data_size"),
        (binary([b"a", b"b"]), None, BadRequest, "binary_data_size"),
        (binary([b"a"]), 5, BadRequest, "element 1"),
        (b"", 0, BadRequest, "element 0"),
        (b"\x01\x00", 2, BadRequest, "element 0"),
        (b"\xff\xff\xff\xff" + b"a" * 8, 12, BadRequest, "longer than the tensor"),
        (binary([b"a", b"b", b"c"]), 15, BadRequest, "5 bytes beyond"),
        (binary([b"a", b"\xff"]), 10, BadRequest, "element 1 .* UTF-8"),
        (binary([b"a", b"b" * 11]), 20, TooLarge, "11 characters"),
        (binary([b"a", b"b" * 41]), 50, TooLarge, "41 bytes"),
    ],
)
def test_binary_lengths_that_lie_are_refused(
    raw: bytes, stated_size: Any, problem: type[RequestError], words: str
) -> None:
    """No stated length is believed: each is compared with the bytes that are there."""
    parameters = {} if stated_size is None else {"binary_data_size": stated_size}
    with pytest.raises(problem, match=words):
        parse_binary({"inputs": [tensor(data=..., parameters=parameters)]}, raw)


@pytest.mark.parametrize("stated", [b"-1", b"x", b" ", b"1e3", b"99999", b"9" * 5000, "²".encode("latin-1")])
def test_a_header_length_that_does_not_fit_is_refused(stated: bytes) -> None:
    """Inference-Header-Content-Length must be a number within the body."""
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        parse_binary({"inputs": [tensor()]}, b"", stated)


@given(
    st.binary(max_size=120), st.none() | st.binary(max_size=6) | st.integers(0, 130).map(lambda n: b"%d" % n)
)
def test_no_bytes_break_the_parser(body: bytes, stated: bytes | None) -> None:
    """Any bytes under any header give a request or a RequestError, never anything else."""
    with pytest.raises(RequestError):
        oip.parse(body, stated, "cascade", LIMITS, 0.0)


@given(st.lists(st.text(max_size=9), min_size=1, max_size=4), st.binary(max_size=4), st.integers(-3, 3))
def test_binary_tensors_round_trip_and_no_damage_breaks_the_reader(
    texts: list[str], noise: bytes, shift: int
) -> None:
    """What dump writes, load_texts reads; cut or lengthened tensors are refused."""
    raw = oip_binary.dump(texts, "BYTES")
    assert oip_binary.load_texts(raw, len(texts), LIMITS) == texts
    if noise:
        with pytest.raises(RequestError):
            oip_binary.load_texts(raw + noise, len(texts), LIMITS)
    if shift < 0:
        with pytest.raises(RequestError):
            oip_binary.load_texts(raw[:shift], len(texts), LIMITS)


def result() -> ClassifyResult:
    """Two answers."""
    return ClassifyResult(
        model="linear",
        labels=("no", "ja é"),
        predicted=[1, 0],
        confidence=[0.75, 0.5],
        variant=["linear", "linear"],
        escalated=[False, True],
        degraded=[True, False],
        logits=np.array([[0.0, 1.0], [2.0, 1.0]], dtype=np.float32),
        temperatures=[1.0, 1.0],
        policy_version=None,
    )


def test_a_json_reply_holds_the_tensors_asked_for() -> None:
    """Names, types, shapes and flat data, in the order asked for, id echoed."""
    outputs = [{"name": "probabilities"}, {"name": "label"}, {"name": "escalated"}]
    call = parse({"id": "x", "inputs": [tensor()], "outputs": outputs}, "linear")
    reply = oip.render(call, result())
    value = json.loads(reply.body)
    InferReply.model_validate(value)
    assert (value["model_name"], value["model_version"], value["id"]) == ("linear", "1", "x")
    assert [t["name"] for t in value["outputs"]] == ["probabilities", "label", "escalated"]
    assert value["outputs"][0]["shape"] == [2, 2]
    assert sum(value["outputs"][0]["data"]) == pytest.approx(2)
    assert value["outputs"][1] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["ja é", "no"]}
    assert value["outputs"][2]["data"] == [False, True]
    assert reply.headers == ()


def test_a_binary_reply_states_where_its_json_ends_and_its_tensors_lie() -> None:
    """Binary tensors follow the JSON in order; others stay inside it."""
    asked = [
        {"name": "confidence", "parameters": {"binary_data": True}},
        {"name": "variant"},
        {"name": "degraded", "parameters": {"binary_data": True}},
        {"name": "label", "parameters": {"binary_data": True}},
    ]
    reply = oip.render(parse({"inputs": [tensor()], "outputs": asked}, "linear"), result())
    ((name, stated),) = reply.headers
    assert name == b"inference-header-content-length"
    head, tail = json.loads(reply.body[: int(stated)]), reply.body[int(stated) :]
    InferReply.model_validate(head)
    sizes = [t.get("parameters", {}).get("binary_data_size") for t in head["outputs"]]
    assert sizes == [8, None, 2, len(binary(["ja é".encode(), b"no"]))]
    assert np.frombuffer(tail[:8], "<f4").tolist() == [0.75, 0.5]
    assert tail[8:10] == b"\x01\x00"
    assert tail[10:] == binary(["ja é".encode(), b"no"])
    assert head["outputs"][1]["data"] == ["linear", "linear"]


def test_metadata_names_inputs_and_outputs() -> None:
    """The cascade has no probabilities, a variant has one per class; both say what is behind them."""
    value = oip.model_metadata(ModelInfo("linear", ("no", "yes"), "linear", "f00"))
    ModelMetadata.model_validate(value)
    assert value["outputs"][-1] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}
    assert value["parameters"]["content"] == "f00"
    cascade = oip.model_metadata(ModelInfo("cascade", ("no", "yes"), "cascade", "f00"))
    assert "probabilities" not in [output["name"] for output in cascade["outputs"]]
