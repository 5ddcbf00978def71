"""The gRPC service on a real server, driven by tritonclient: the answers, refusals and deadlines of HTTP."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from contract.errors import (
    DeadlineExceeded,
    LimitReached,
    NotReady,
    Overloaded,
    RequestError,
    StageFailed,
)
from runtime.fake_family import write_fake_family
from serve.access.accounts import Accounts
from serve.access.gate import Gate
from serve.access.keys import KeyLimits, created, mint
from serve.dataplane.family_planes import FamilyPlanes
from serve.dataplane.plane import DataPlane
from serve.grpc.messages import MESSAGES, PACKAGE, message
from serve.grpc.peers import LOOPBACK_PEERS
from serve.grpc.service import InferenceService, handlers
from serve.grpc.status import code_of, retry_trailer
from serve.http.app import Gateway
from serve.http.fast_routes import HotRoutes
from serve.settings.limits import RequestLimits
from serve.stages.inline import InlineStage
from serve.types.stage import Snapshot
from serve.wire.common import Reply
from tests.serve.parts import FakeFolder, Kept, serving, snapshot_of, two_stage_policy

LIMITS = RequestLimits(max_body_bytes=1 << 16, max_texts=64, max_characters=500)
THEIRS = importlib.import_module("tritonclient.grpc.service_pb2")


@dataclass(frozen=True)
class Both:
    """One family over HTTP and gRPC."""

    http: str
    grpc: str
    service: InferenceService


def serve_grpc(
    service: Callable[[], InferenceService | None], only_from: tuple[str, ...] = ()
) -> tuple[str, Callable[[], None]]:
    """Run a gRPC server in a thread; return its address and what ends it."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()
    port = 0

    async def run() -> None:
        nonlocal port
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(service, only_from=only_from),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.set()
        await ending.wait()
        await server.stop(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    started.wait()

    def stop() -> None:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()

    return f"127.0.0.1:{port}", stop


def _same(snapshot: Snapshot) -> Snapshot:
    return snapshot


@pytest.fixture(scope="module")
def both(fake_folder: FakeFolder) -> Iterator[Both]:
    """The fake family, every stage inside, over both protocols: each on the event loop of its server."""
    page = b"# TYPE sluice_requests_total counter\n"
    planes = []
    for _ in range(2):
        recorder = Kept()
        snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
        planes.append((DataPlane(partial(_same, snapshot), LIMITS, recorder), recorder))
    (over_http, http_recorder), (over_grpc, grpc_recorder) = planes
    service = InferenceService(over_grpc, LIMITS, grpc_recorder, lambda: page)
    address, stop = serve_grpc(lambda: service)
    try:
        with serving(Gateway(over_http, LIMITS, http_recorder, lambda: page)) as url:
            yield Both(url, address, service)
    finally:
        stop()


@pytest.fixture(scope="module")
def client(both: Both) -> Iterator[Any]:
    """A client that is not ours."""
    with triton.InferenceServerClient(both.grpc) as opened:
        yield opened


@pytest.fixture(scope="module")
def channel(both: Both) -> Iterator[Any]:
    """A bare channel, for what tritonclient cannot send."""
    with grpc.insecure_channel(both.grpc) as opened:
        yield opened


def tensor(texts: list[str]) -> Any:
    """The input of those texts."""
    given_input = triton.InferInput("text", [len(texts)], "BYTES")
    given_input.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_))
    return given_input


def contents(texts: list[str], model: str = "cascade", **more: Any) -> Any:
    """A request with its texts in contents, as clients without the raw form send it."""
    inputs = [
        {
            "name": "text",
            "datatype": "BYTES",
            "shape": [len(texts)],
            "contents": {"bytes_contents": [text.encode() for text in texts]},
        }
    ]
    return message("ModelInferRequest")(**{"model_name": model, "inputs": inputs, **more})


def call(channel: Any, sent: bytes, metadata: tuple[tuple[str, str], ...] = (), timeout: float = 20) -> Any:
    """Send the bytes of a ModelInfer call; return its reply's bytes, and the call."""
    method = channel.unary_unary(f"/{PACKAGE}.GRPCInferenceService/ModelInfer")
    return method.with_call(sent, metadata=metadata, timeout=timeout)


def test_every_field_has_the_number_and_type_that_clients_know() -> None:
    """What tritonclient was generated from and what is built here agree, message by message."""
    for name, ours in ((name, message(name).DESCRIPTOR) for name in MESSAGES):
        theirs = THEIRS.DESCRIPTOR.pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
        known = {field.name: field for field in theirs.fields}
        for field in ours.fields:
            other = known[field.name]
            assert field.number == other.number, (name, field.name)
            enumerated = other.type == other.TYPE_ENUM and field.type == field.TYPE_INT32
            assert enumerated or field.type == other.type, (name, field.name)
            assert field.is_repeated == other.is_repeated, (name, field.name)
            if field.message_type is not None:
                assert field.message_type.full_name == other.message_type.full_name


def test_the_same_texts_have_the_same_answers_over_both(both: Both, client: Any) -> None:
    """Label, confidence, variant and escalation, row by row, for the router and for a variant."""
    texts = [f"sport: story {n}" for n in range(60)]
    for model in ("cascade", "fake-other"):
        body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [60], "data": texts}]}
        reply = httpx.post(f"{both.http}/v2/models/{model}/infer", json=body).json()
        told = client.infer(model, [tensor(texts)])
        for output in reply["outputs"]:
            values = told.as_numpy(output["name"])
            if output["datatype"] == "BYTES":
                assert [value.decode() for value in values] == output["data"]
            else:
                assert values.ravel().tolist() == pytest.approx(output["data"], abs=1e-6)
        assert told.get_response().model_version == reply["model_version"]
    variants = client.infer("cascade", [tensor(texts)]).as_numpy("variant")
    assert set(variants) == {b"fake-small", b"fake-large"}


def test_contents_are_answered_in_contents(channel: Any) -> None:
    """A client that sends no raw tensors gets none."""
    sent, _ = call(channel, contents(["sport: a", "tech: b"], id="7").SerializeToString())
    response = message("ModelInferResponse").FromString(sent)
    assert response.id == "7"
    assert not response.raw_output_contents
    outputs = {output.name: output for output in response.outputs}
    assert list(outputs["label"].contents.bytes_contents) == [b"sport", b"tech"]
    assert len(outputs["confidence"].contents.fp32_contents) == 2
    assert list(outputs["degraded"].contents.bool_contents) == [False, False]


def test_outputs_classes_and_the_policy_are_told(client: Any) -> None:
    """Outputs come as asked for; the surest classes as Triton writes them."""
    asked = [
        triton.InferRequestedOutput("probabilities", class_count=2),
        triton.InferRequestedOutput("label"),
    ]
    told = client.infer("fake-large", [tensor(["sport: a"])], outputs=asked, request_id="order-7")
    assert [output.name for output in told.get_response().outputs] == ["probabilities", "label"]
    assert told.as_numpy("probabilities").shape == (1, 2)
    assert told.get_response().id == "order-7"
    cascade = client.infer("cascade", [tensor(["sport: a"])]).get_response()
    assert len(cascade.parameters["policy_version"].string_param) == 64


def test_health_and_metadata(client: Any) -> None:
    """Alive, ready, and what is there, in the words of HTTP."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cascade")
    assert client.get_server_metadata().name == "sluicegate"
    metadata = client.get_model_metadata("fake-other", "1")
    assert metadata.inputs[0].datatype == "BYTES"
    assert [output.name for output in metadata.outputs][-1] == "probabilities"
    config = client.get_model_config("cascade", as_json=True)["config"]
    assert (config["max_batch_size"], config["input"][0]["data_type"]) == (64, "TYPE_STRING")
    statistics = client.get_inference_statistics(as_json=True)["model_stats"]
    assert {entry["name"] for entry in statistics} == {"cascade", "fake-small", "fake-other", "fake-large"}
    index = client.get_model_repository_index(as_json=True)["models"]
    assert {entry["state"] for entry in index} == {"READY"}


@pytest.mark.parametrize(
    ("model", "texts", "version", "status"),
    [
        ("nobody", ["a"], "", "NOT_FOUND"),
        ("cascade", ["a"], "2", "NOT_FOUND"),
        ("cascade", ["a" * 501], "", "INVALID_ARGUMENT"),
        ("cascade", ["a"] * 65, "", "INVALID_ARGUMENT"),
    ],
)
def test_refusals_have_the_status_of_their_kind(
    client: Any, model: str, texts: list[str], version: str, status: str
) -> None:
    """An unknown model or version, a text or a batch beyond the limits."""
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model, [tensor(texts)], model_version=version)
    assert refused.value.status() == f"StatusCode.{status}"


@pytest.mark.anyio
@pytest.mark.parametrize("closed", [False, True])
async def test_refusals_are_counted_as_over_http(fake_folder: FakeFolder, closed: bool) -> None:
    """By model where it is served, and as many texts as were read."""
    http, grpc_ = Kept(), Kept()
    snapshots = [snapshot_of(fake_folder, two_stage_policy(), kept) for kept in (http, grpc_)]
    if closed:
        for stage in (stage for snapshot in snapshots for stage in snapshot.stages.values()):
            assert isinstance(stage, InlineStage)
            await stage.close()
    planes = [
        DataPlane(partial(_same, snapshot), LIMITS, kept)
        for snapshot, kept in zip(snapshots, (http, grpc_), strict=True)
    ]
    routes = HotRoutes(planes[0], LIMITS, http, Gate())
    service = InferenceService(planes[1], LIMITS, grpc_, bytes)
    asked = [("nobody", ["a"]), ("cascade", ["a" * 501]), ("cascade", ["a"] * 65), ("fake-large", [])]
    if closed:
        asked += [("cascade", ["a", "b", "c"]), ("fake-large", ["a", "b"])]
    for model, texts in asked:
        body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
        _, reply = routes.begin(f"/v2/models/{model}/infer", (), json.dumps(body).encode())
        if not isinstance(reply, Reply):
            reply = await reply
        assert reply.status >= 400
        with pytest.raises(Aborted):
            await service.call("ModelInfer", contents(texts, model).SerializeToString(), Context(()))
    assert len(http.refusals) == len(asked)
    assert grpc_.refusals == http.refusals
    assert (("cascade", "overloaded", 3) in grpc_.refusals) is closed


@pytest.mark.anyio
async def test_limits_and_clients_that_leave_are_counted_as_over_http(fake_folder: FakeFolder) -> None:
    """A key beyond its rate is named with its texts; a call that is cancelled is a client that left."""
    recorder = Kept()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
    key, record = mint("web", ("infer",), KeyLimits(rate_per_s=0.001), datetime.now(UTC))
    gate = Gate(Accounts("r0", 1))
    gate.take(created(None, record, datetime.now(UTC)))
    plane = DataPlane(lambda: snapshot, LIMITS, recorder)
    service = InferenceService(plane, LIMITS, recorder, bytes, gate=gate)
    context = Context((("authorization", f"Bearer {key}"),))
    assert await service.call("ModelInfer", contents(["a"]).SerializeToString(), context)
    with pytest.raises(Aborted):
        await service.call("ModelInfer", contents(["a"] * 9).SerializeToString(), context)
    assert recorder.refusals == [("cascade", "client_error", 9)]
    [(name, _, texts)] = recorder.limits
    assert (name, texts) == ("web", 9)
    with pytest.raises(Aborted):
        await service.call("ModelMetadata", b"", Context(()))
    assert recorder.refusals[1:] == [("unknown", "client_error", 1)]
    open_to_all = InferenceService(plane, LIMITS, recorder, bytes)
    large = contents(["a"], "fake-large").SerializeToString()
    leaving = asyncio.create_task(open_to_all.call("ModelInfer", large, Context(())))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert recorder.incidents == [("client_left", "", 1)]


class Aborted(Exception):
    """What ends a call, as gRPC's own does."""


@dataclass(frozen=True)
class Context:
    """A call's context, as far as the service asks for it."""

    metadata: tuple[tuple[str, str], ...]

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """What the client sent."""
        return self.metadata

    def set_trailing_metadata(self, metadata: object) -> None:
        """Take what goes back."""

    def time_remaining(self) -> float | None:
        """No deadline."""
        return None

    async def abort(self, code: object, message: str, trailer: object) -> None:
        """End the call."""
        raise Aborted(code, message, trailer)


@pytest.mark.parametrize(
    ("problem", "status", "pushback"),
    [
        (Overloaded("full", retry_after_s=2.5), "RESOURCE_EXHAUSTED", "2500"),
        (LimitReached("enough", retry_after_s=9), "RESOURCE_EXHAUSTED", "9000"),
        (NotReady("draining"), "UNAVAILABLE", "1000"),
        (NotReady("its stage fails", retry_after_s=7.5), "UNAVAILABLE", "7500"),
        (DeadlineExceeded("late"), "DEADLINE_EXCEEDED", None),
        (StageFailed("broke"), "INTERNAL", None),
        (RequestError("other"), "INTERNAL", None),
    ],
)
def test_every_problem_has_its_status(problem: RequestError, status: str, pushback: str | None) -> None:
    """What can be tried again says when, in the form that gRPC's own retries obey."""
    assert code_of(problem).name == status
    assert dict(retry_trailer(problem)).get("grpc-retry-pushback-ms") == pushback


def test_a_deadline_of_grpc_or_of_a_parameter_is_the_requests_deadline(channel: Any) -> None:
    """What comes too late for either is not begun."""
    far = contents(["sport: a"], parameters={"timeout": {"int64_param": 9_000_000}})
    sent, _ = call(channel, far.SerializeToString(), timeout=5)
    assert sent
    near = contents(["sport: a"], parameters={"timeout": {"int64_param": 1}})
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, near.SerializeToString(), timeout=5)
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_every_reply_carries_a_request_id(channel: Any) -> None:
    """The client's where it is fit, in the trailing metadata, of refusals too."""
    sent = contents(["sport: a"]).SerializeToString()
    _, answered = call(channel, sent, (("x-request-id", "order-7"),))
    assert dict(answered.trailing_metadata())["x-request-id"] == "order-7"
    _, unnamed = call(channel, sent)
    assert dict(unnamed.trailing_metadata())["x-request-id"]
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, b"\xff", (("x-request-id", "order-8"),))
    assert dict(refused.value.trailing_metadata())["x-request-id"] == "order-8"


def test_a_key_is_asked_for_once_there_are_keys(both: Both, client: Any) -> None:
    """Without one, or with a wrong one, the call is unauthenticated; liveness stays open."""
    gate = Gate()
    gate.keyed = True
    kept, both.service._gate = both.service._gate, gate
    try:
        for headers in (None, {"authorization": "Bearer sk-nonsense"}):
            with pytest.raises(InferenceServerException) as refused:
                client.infer("cascade", [tensor(["sport: a"])], headers=headers)
            assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
        with pytest.raises(InferenceServerException):
            client.get_model_metadata("cascade")
        assert client.is_server_live()
    finally:
        both.service._gate = kept


def test_priority_and_sticky_key_are_read(channel: Any) -> None:
    """From parameters and from metadata; a wrong one is refused by name."""
    good = contents(["sport: a"], parameters={"priority": {"uint64_param": 1}})
    call(channel, good.SerializeToString(), (("x-sluice-sticky-key", "customer-7"),))
    with pytest.raises(grpc.RpcError, match="x-sluice-priority"):
        call(channel, contents(["a"]).SerializeToString(), (("x-sluice-priority", "urgent"),))


def test_a_server_without_a_replica_says_try_again() -> None:
    """The proxy that stands in while no replica is there answers UNAVAILABLE."""
    address, stop = serve_grpc(lambda: None)
    try:
        with grpc.insecure_channel(address) as opened, pytest.raises(grpc.RpcError) as refused:
            call(opened, b"")
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert dict(refused.value.trailing_metadata())["retry-after"] == "1"
    finally:
        stop()


@pytest.mark.parametrize(
    ("only_from", "code"),
    [(LOOPBACK_PEERS, grpc.StatusCode.OK), (("ipv4:10.",), grpc.StatusCode.PERMISSION_DENIED)],
)
def test_who_may_call_can_be_bounded(both: Both, only_from: tuple[str, ...], code: Any) -> None:
    """Replicas on HAProxy's machine answer to loopback, and to nobody else before anything is read."""
    address, stop = serve_grpc(lambda: both.service, only_from)
    try:
        with grpc.insecure_channel(address) as opened:
            method = opened.unary_unary(f"/{PACKAGE}.GRPCInferenceService/ServerLive")
            assert method.future(b"", timeout=10).code() == code
    finally:
        stop()


WORDS = st.text(max_size=12)
PARAMETERS = st.dictionaries(
    WORDS,
    st.one_of(
        st.fixed_dictionaries({"bool_param": st.booleans()}),
        st.fixed_dictionaries({"int64_param": st.integers(-(2**63), 2**63 - 1)}),
        st.fixed_dictionaries({"double_param": st.floats()}),
        st.fixed_dictionaries({"string_param": WORDS}),
    ),
    max_size=3,
)
INPUTS = st.fixed_dictionaries(
    {"name": st.sampled_from(["text", ""]), "datatype": st.sampled_from(["BYTES", "FP32"])},
    optional={
        "shape": st.lists(st.integers(-2, 4), max_size=3),
        "parameters": PARAMETERS,
        "contents": st.fixed_dictionaries({"bytes_contents": st.lists(st.binary(max_size=9), max_size=3)}),
    },
)
REQUESTS = st.fixed_dictionaries(
    {"model_name": st.sampled_from(["cascade", "fake-large", "x"])},
    optional={
        "id": WORDS,
        "parameters": PARAMETERS,
        "inputs": st.lists(INPUTS, max_size=2),
        "raw_input_contents": st.lists(st.binary(max_size=20), max_size=2),
    },
).map(lambda fields: message("ModelInferRequest")(**fields).SerializeToString())
CLIENTS_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


@settings(max_examples=150, deadline=None)
@given(sent=st.one_of(st.binary(max_size=60), REQUESTS))
def test_no_bytes_make_the_service_fail(channel: Any, sent: bytes) -> None:
    """Whatever is sent is answered, or refused as the client's fault."""
    method = channel.unary_unary(f"/{PACKAGE}.GRPCInferenceService/ModelInfer")
    answered = method.future(sent, timeout=20)
    code = answered.code()
    assert code is grpc.StatusCode.OK or code in CLIENTS_FAULT, answered.details()
    if code is grpc.StatusCode.OK:
        assert message("ModelInferResponse").FromString(answered.result()).outputs


def test_of_several_families_each_answers_by_its_names(tmp_path: Path) -> None:
    """Metadata, index and answers over gRPC have the names that were asked for."""
    recorder, planes = Kept(), {}
    for name, labels in (("news", ("sport", "tech")), ("mood", ("bad", "good"))):
        family = write_fake_family(tmp_path / name, rows=60, delay_ms=0.0, labels=labels, name=name)
        snapshot = snapshot_of(FakeFolder(tmp_path / name, family), two_stage_policy(), recorder)
        planes[name] = DataPlane(partial(_same, snapshot), LIMITS, recorder, name)
    both = FamilyPlanes()
    both.serve(planes)
    service = InferenceService(both, LIMITS, recorder, lambda: b"# TYPE sluice_requests_total counter\n")
    address, stop = serve_grpc(lambda: service)
    try:
        with triton.InferenceServerClient(address) as client:
            index = [entry["name"] for entry in client.get_model_repository_index(as_json=True)["models"]]
            assert index == list(both.models())
            for model in ("mood", "mood/fake-large"):
                assert client.is_model_ready(model)
                assert client.get_model_metadata(model).name == model
                text = triton.InferInput("text", [1], "BYTES")
                text.set_data_from_numpy(np.array([b"a story"], dtype=object))
                result = client.infer(model, [text])
                assert result.get_response().model_name == model
                assert result.as_numpy("label")[0].decode() in ("bad", "good")
    finally:
        stop()
