"""The gateway on a real server, driven by clients that are not ours."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from contract.errors import NotReady, Overloaded
from runtime.api import Logits
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.http.fast_routes import HotRoutes
from serve.settings.limits import RequestLimits
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot
from serve.wire.schemas import ClassifyReply, ErrorBody, ModelMetadata, ServerMetadata
from tests.serve.parts import FakeFolder, Kept, Served, serving, snapshot_of, two_stage_policy

INFER = "/v2/models/cascade/infer"
TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["sport: a"]}


@pytest.fixture(scope="module")
def client(served: Served) -> Any:
    """An HTTP client with kept connections."""
    with httpx.Client(base_url=served.url, timeout=30) as opened:
        yield opened


def assert_serving(client: httpx.Client) -> None:
    """The service goes on."""
    reply = client.post("/v1/classify", json={"inputs": "sport: story 1"})
    assert reply.status_code == 200, reply.text


def test_classify_answers_in_the_published_form(client: httpx.Client) -> None:
    """One text or several, the cascade or a variant: a list of outputs, in order."""
    reply = client.post("/v1/classify", json={"inputs": "sport: story 1"})
    assert reply.headers["content-type"] == "application/json"
    assert len(ClassifyReply.model_validate(reply.json()).outputs) == 1
    body = {"inputs": ["sport: a", "tech: b"], "model": "fake-large", "top_k": 2, "deadline_ms": 20_000}
    value = client.post("/v1/classify", json=body).json()
    ClassifyReply.model_validate(value)
    assert value["policy_version"] is None
    assert {output["variant"] for output in value["outputs"]} == {"fake-large"}
    assert [len(output["top"]) for output in value["outputs"]] == [2, 2]


def test_health_and_metadata(client: httpx.Client) -> None:
    """Live, ready, server and model metadata, with and without a version."""
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").json() == {"ready": True}
    ServerMetadata.model_validate(client.get("/v2").json())
    for model in ("cascade", "fake-other"):
        for path in (f"/v2/models/{model}", f"/v2/models/{model}/versions/1"):
            assert ModelMetadata.model_validate(client.get(path).json()).name == model
            assert client.get(f"{path}/ready").json() == {"name": model, "ready": True}


def test_metrics_come_from_the_page_that_was_given(client: httpx.Client) -> None:
    """The route delegates."""
    reply = client.get("/metrics")
    assert (reply.text, reply.headers["content-type"].split(";")[0]) == ("sluice_up 1\n", "text/plain")


def test_the_description_is_served(client: httpx.Client) -> None:
    """Clients find the OpenAPI document where FastAPI puts it."""
    assert "/v1/classify" in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/cascade/versions/9", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v1/classify", 405),
        ("DELETE", "/v2", 405),
        ("GET", INFER, 405),
        ("POST", "/v2/health/live", 405),
        ("POST", "/v2/models/cascade/infer/", 400),
        ("POST", "/v1//classify/", 400),
        ("POST", "/v2/models/infer", 405),
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", "/v2/models/%2e%2e%2fetc/infer", 404),
        ("POST", "/v2/models/cascade/versions/2/infer", 404),
        ("PUT", "/v2/repository/index", 405),
        ("POST", "/v2/repository", 404),
    ],
)
def test_unknown_paths_models_and_methods_keep_the_error_form(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    """404 and 405 carry {"error": ...} and nothing else."""
    reply = client.request(method, path)
    assert reply.status_code == status
    ErrorBody.model_validate(reply.json())


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"not json", {}, 400),
        (b"", {}, 400),
        (b'{"inputs": "\xff"}', {}, 400),
        (b"[" * 1000 + b"]" * 1000, {}, 400),
        (b'{"inputs": 7}', {}, 400),
        (b'{"inputs": "a", "model": "nobody"}', {}, 404),
        (b'{"inputs": "' + b"a" * 501 + b'"}', {}, 413),
        (b'{"inputs": "' + b"a" * 5000 + b'"}', {}, 413),
        (json.dumps({"inputs": ["a"] * 9}).encode(), {}, 413),
        (gzip.compress(b"a" * 100_000, mtime=0), {"content-encoding": "gzip"}, 413),
        (b'{"inputs": "a"}', {"content-encoding": "gzip"}, 400),
        (b'{"inputs": "a"}', {"content-encoding": "br"}, 415),
        (b'{"inputs": "a"}', {"content-type": "multipart/form-data"}, 415),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
def test_wrong_bodies_get_a_4xx_and_the_service_goes_on(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Every wrong body is refused clearly, on the same connection as what follows."""
    reply = client.post("/v1/classify", content=body, headers=headers)
    assert reply.status_code == status
    ErrorBody.model_validate(reply.json())
    assert_serving(client)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/classify", b'{"inputs": "sport: story 1"}'),
        ("POST", INFER, json.dumps({"inputs": [TENSOR]}).encode()),
        ("POST", "/v1/classify", b"not json"),
        ("POST", "/v2/models/nobody/infer", b"{}"),
        ("POST", "/v1//classify/", b'{"inputs": "sport: story 1"}'),
        ("GET", "/v2/health/ready", b""),
        ("GET", "/metrics", b""),
        ("GET", "/nowhere", b""),
        ("PUT", "/v2", b""),
        ("HEAD", "/v2", b""),
    ],
)
def test_every_reply_carries_one_request_id(
    client: httpx.Client, method: str, path: str, body: bytes
) -> None:
    """The client's own where it is fit, else a new one, whoever in the gateway answers."""
    own = client.request(method, path, content=body, headers={"x-request-id": "order-7"})
    assert own.headers.get_list("x-request-id") == ["order-7"]
    strange = client.request(method, path, content=body, headers={"x-request-id": 'a "b"'})
    missing = client.request(method, path, content=body)
    given = [*strange.headers.get_list("x-request-id"), *missing.headers.get_list("x-request-id")]
    assert len(set(given)) == 2
    assert all(id_.replace("-", "").isalnum() for id_ in given)


def test_an_endless_chunked_body_is_refused(served: Served) -> None:
    """A body without a length is refused once it passes the limit, long before it ends."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(10):
            raw.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_client_that_leaves_in_the_middle_does_no_harm(served: Served, client: httpx.Client) -> None:
    """Connections that close within head or body are forgotten."""
    host, port = served.url.removeprefix("http://").split(":")
    for part in (b"POST /v1/cl", b'POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{"in'):
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(part)
    assert_serving(client)


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["inputs", "model", "outputs", "id", "parameters"]), inner)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["/v1/classify", INFER, "/v2/models/fake-other/infer"]),
    st.none() | st.integers(-2, 400),
)
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_the_service_fail(
    client: httpx.Client, body: bytes, path: str, stated: int | None
) -> None:
    """Whatever is posted, the reply is 200 or a 4xx with an error, never a 5xx."""
    headers = {} if stated is None else {"inference-header-content-length": str(stated)}
    reply = client.post(path, content=body, headers=headers)
    assert reply.status_code == 200 or 400 <= reply.status_code < 500
    if reply.status_code != 200:
        ErrorBody.model_validate(reply.json())


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("model", ["cascade", "fake-small", "fake-other", "fake-large"])
def test_tritonclient_works_unchanged(
    served: Served, model: str, binary: bool, compression: str | None
) -> None:
    """Health, metadata and inference with all forms of input, output and compression."""
    address = served.url.removeprefix("http://")
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        assert client.get_server_metadata()["name"] == "sluicegate"
        offered = [output["name"] for output in client.get_model_metadata(model)["outputs"]]
        tensor = triton.InferInput("text", [3, 1], "BYTES")
        texts = np.array([["sport: a"], ["tech: é"], [""]], dtype=np.object_)
        tensor.set_data_from_numpy(texts, binary_data=binary)
        for outputs in (
            None,
            [triton.InferRequestedOutput(name, binary_data=i % 2 == 0) for i, name in enumerate(offered)],
        ):
            reply = client.infer(
                model,
                [tensor],
                outputs=outputs,
                request_id="r1",
                timeout=20_000_000,
                priority=1,
                request_compression_algorithm=compression,
                response_compression_algorithm=compression,
            )
            assert reply.get_response()["id"] == "r1"
            assert reply.as_numpy("label").shape == (3,)
            assert reply.as_numpy("confidence").dtype == np.float32
            assert reply.as_numpy("escalated").dtype == np.bool_
            if model != "cascade":
                assert set(reply.as_numpy("variant")) == {model.encode()}
                np.testing.assert_allclose(reply.as_numpy("probabilities").sum(axis=1), 1, atol=1e-5)


def test_tritonclient_shows_our_errors(served: Served) -> None:
    """The error text reaches the user of the client."""
    with triton.InferenceServerClient(served.url.removeprefix("http://")) as client:
        tensor = triton.InferInput("text", [1], "BYTES")
        tensor.set_data_from_numpy(np.array(["a"], dtype=np.object_))
        with pytest.raises(InferenceServerException, match="unknown model 'nobody'"):
            client.infer("nobody", [tensor])


def test_both_protocols_give_the_same_answers(client: httpx.Client) -> None:
    """One data plane behind two forms."""
    texts = [f"politics: story {n}" for n in range(8)]
    simple = client.post("/v1/classify", json={"inputs": texts}).json()["outputs"]
    tensor = TENSOR | {"shape": [8], "data": texts}
    outputs = {t["name"]: t["data"] for t in client.post(INFER, json={"inputs": [tensor]}).json()["outputs"]}
    for name in ("label", "confidence", "variant", "escalated", "degraded"):
        assert outputs[name] == [output[name] for output in simple]
    assert len(set(outputs["variant"])) == 2


def test_requests_are_recorded_once(fake_folder: FakeFolder) -> None:
    """Answers by the data plane, refusals at the edge; unknown names do not become label values."""
    kept = Kept()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), kept)
    dataplane = DataPlane(lambda: snapshot, RequestLimits(), kept)
    with serving(Gateway(dataplane, RequestLimits(), kept, bytes)) as url:
        httpx.post(f"{url}/v1/classify", json={"inputs": ["a", "b"], "model": "fake-other"})
        httpx.post(f"{url}/v1/classify", content=b"x")
        httpx.post(f"{url}/v1/classify", json={"inputs": ["a", "b"], "model": "nobody"})
        httpx.post(f"{url}/v2/models/nobody/infer", json={"inputs": [TENSOR]})
    assert [(record.model, len(record.confidences)) for record in kept.answers] == [("fake-other", 2)]
    assert kept.refusals == [
        ("unknown", "client_error", 1),
        ("unknown", "client_error", 2),
        ("unknown", "client_error", 1),
    ]


def test_before_the_first_revision_no_name_from_outside_reaches_the_metrics() -> None:
    """A client cannot make series up, not even while nothing is served."""
    kept = Kept()

    def nothing() -> Snapshot:
        raise NotReady("no revision yet")

    with serving(Gateway(DataPlane(nothing, RequestLimits(), kept), RequestLimits(), kept, bytes)) as url:
        reply = httpx.post(f"{url}/v1/classify", json={"inputs": "a", "model": "made-up"})
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert httpx.post(f"{url}/v2/models/made-up/infer", json={}).status_code == 503
        assert httpx.get(f"{url}/v2/models/made-up").status_code == 503
    assert kept.refusals == [("unknown", "overloaded", 1)] * 2


class Broken:
    """A stage that raises what it is told to."""

    def __init__(self, variant: str, problem: Exception) -> None:
        self.variant = variant
        self.problem = problem

    async def logits(self, texts: Any, *terms: Any) -> Logits:
        """Fail."""
        raise self.problem

    def logits_now(self, *_: Any) -> None:
        """Never."""

    async def ready(self) -> bool:
        """Never."""
        return False


@pytest.mark.parametrize(
    ("problem", "status", "retry_after"),
    [
        (Overloaded("the queue is full", retry_after_s=2.3), 429, "3"),
        (NotReady("draining"), 503, "1"),
        (MemoryError("0x7f secret"), 500, None),
    ],
)
def test_overload_and_failure_keep_the_error_form(
    fake_folder: FakeFolder, problem: Exception, status: int, retry_after: str | None
) -> None:
    """Full and draining say when to come back; a failure tells nothing of its inside; ready says no."""
    whole = snapshot_of(fake_folder, two_stage_policy(), NoRecorder())
    stages = {name: Broken(name, problem) for name in whole.stages}
    snapshot = Snapshot(1, whole.policy, whole.compiled, whole.family, stages)
    dataplane = DataPlane(lambda: snapshot, RequestLimits(), NoRecorder())
    with serving(Gateway(dataplane, RequestLimits(), NoRecorder(), bytes)) as url:
        for path, body in (("/v1/classify", {"inputs": "a"}), (INFER, {"inputs": [TENSOR]})):
            reply = httpx.post(url + path, json=body)
            assert reply.status_code == status
            assert "secret" not in ErrorBody.model_validate(reply.json()).error
            assert reply.headers.get("retry-after") == retry_after
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        ready = httpx.get(f"{url}/v2/health/ready")
        assert (ready.status_code, "error" in ready.json()) == (503, True)
        assert httpx.get(f"{url}/v2/models/fake-other/ready").status_code == 503


def test_a_deadline_that_passes_is_a_504(served: Served) -> None:
    """Without an answer in hand, too late is said as such."""
    body = {"inputs": "a", "deadline_ms": 0.0001, "model": "fake-large"}
    reply = httpx.post(f"{served.url}/v1/classify", json=body)
    assert reply.status_code == 504
    assert "deadline" in reply.json()["error"]


def test_the_shell_alone_answers_every_route(fake_folder: FakeFolder) -> None:
    """A host that only takes a FastAPI application gets the hot routes through it."""
    snapshot = snapshot_of(fake_folder, two_stage_policy(), NoRecorder())
    dataplane = DataPlane(lambda: snapshot, RequestLimits(), NoRecorder())
    gateway = Gateway(dataplane, RequestLimits(), NoRecorder(), bytes)
    with serving(gateway.shell) as url:
        assert httpx.post(f"{url}/v1/classify", json={"inputs": "a"}).status_code == 200
        for path in (INFER, "/v2/models/cascade/versions/1/infer"):
            assert httpx.post(url + path, json={"inputs": [TENSOR]}).json()["model_name"] == "cascade"
        assert httpx.post(url + INFER, content=b"x").status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "taken"),
    [
        ("POST", "/v1/classify", True),
        ("POST", "/v2/models/m/infer", True),
        ("POST", "/v2/models/m/versions/1/infer", True),
        ("GET", "/v1/classify", False),
        ("POST", "/v2/models/a/b/infer", True),
        ("POST", "/v2/models/a/b/versions/1/infer", True),
        ("POST", "/v2/models/a/b/c/infer", False),
        ("POST", "/v2/models/m/infer/x", False),
        ("POST", "/metrics", False),
    ],
)
def test_a_host_can_tell_the_hot_routes(method: str, path: str, taken: bool) -> None:
    """`takes` says which requests may go past the shell."""
    assert HotRoutes.takes({"type": "http", "method": method, "path": path}) is taken
    assert not HotRoutes.takes({"type": "lifespan"})


def test_a_slow_metrics_page_holds_up_no_request(fake_folder: FakeFolder) -> None:
    """The page is drawn beside the event loop: requests are answered meanwhile."""
    recorder, limits = Kept(), RequestLimits()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
    drawing, answered = threading.Event(), threading.Event()

    def page() -> bytes:
        drawing.set()
        return b"in time" if answered.wait(10) else b"too late"

    gateway = Gateway(DataPlane(lambda: snapshot, limits, recorder), limits, recorder, page)
    with serving(gateway) as url, ThreadPoolExecutor(1) as aside:
        scrape = aside.submit(httpx.get, f"{url}/metrics", timeout=20, trust_env=False)
        assert drawing.wait(10)
        reply = httpx.post(f"{url}/v1/classify", json={"inputs": "a"}, timeout=20, trust_env=False)
        answered.set()
        assert reply.status_code == 200
        assert scrape.result().content == b"in time"


def test_a_body_that_never_comes_gets_408(fake_folder: FakeFolder) -> None:
    """A client that states a length and sends nothing is answered in our form, and the connection closes."""
    recorder, limits = Kept(), RequestLimits(max_seconds=0.05)
    snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
    gateway = Gateway(DataPlane(lambda: snapshot, limits, recorder), limits, recorder, bytes)
    with (
        serving(gateway) as url,
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as client,
    ):
        client.settimeout(10)
        client.sendall(b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
        with client.makefile("rb") as reply:
            said = reply.read()
    assert said.startswith(b"HTTP/1.1 408")
    assert b'{"error":"the body was not complete' in said
    assert recorder.refusals == [("unknown", "client_error", 1)]
