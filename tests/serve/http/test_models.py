"""What the gateway tells of its models, asked with tritonclient and over bare HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.settings.limits import RequestLimits
from serve.telemetry.metrics import Telemetry
from serve.wire import oip, oip_models, schemas
from tests.serve.parts import FakeFolder, Served, serving, snapshot_of, two_stage_policy

MODELS = ("cascade", "fake-small", "fake-other", "fake-large")


@pytest.fixture(scope="module")
def counting(fake_folder: FakeFolder) -> Iterator[str]:
    """A gateway that counts as a replica does."""
    telemetry, limits, policy = Telemetry(), RequestLimits(), two_stage_policy()
    snapshot = snapshot_of(fake_folder, policy, telemetry)
    dataplane = DataPlane(lambda: snapshot, limits, telemetry)
    with serving(Gateway(dataplane, limits, telemetry, lambda: telemetry.render(1, policy))) as url:
        yield url


@pytest.fixture
def client(counting: str) -> Iterator[Any]:
    """NVIDIA's client."""
    with triton.InferenceServerClient(counting.removeprefix("http://"), concurrency=4) as opened:
        yield opened


def tensor(*texts: str, column: bool = False) -> triton.InferInput:
    """The input of these texts, [N] or [N, 1]."""
    shape = [len(texts), 1] if column else [len(texts)]
    made = triton.InferInput("text", shape, "BYTES")
    made.set_data_from_numpy(np.array(texts, dtype=np.object_).reshape(shape))
    return made


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("version", ["", "1"])
def test_perf_analyzer_finds_what_it_reads_before_it_starts(client: Any, model: str, version: str) -> None:
    """Its calls in its order, and the very members that it takes without asking whether they are there.

    Read in perf_analyzer's source (model_parser.cc, triton_client_backend.cc): the server's extensions; the
    model's metadata; the configuration, whose tensors must be in the metadata and whose max_batch_size lets
    the first dimension be left open; statistics where the server names that extension.
    """
    extensions = client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(model, version)
    config = client.get_model_config(model, version)
    assert metadata["name"] == config["name"] == model
    assert config["max_batch_size"] == RequestLimits().max_texts
    for kind, configured in (("inputs", "input"), ("outputs", "output")):
        described = {entry["name"]: entry for entry in metadata[kind]}
        assert [entry["name"] for entry in config[configured]] == list(described)
        for entry in config[configured]:
            whole = described[entry["name"]]
            assert whole["shape"] == [-1, *entry["dims"]]
            assert -1 not in entry["dims"]
            assert entry["data_type"] == oip_models.CONFIG_TYPES[whole["datatype"]]
    assert not {"ensemble_scheduling", "sequence_batching", "response_cache"} & set(config)
    assert "statistics" in extensions
    for entry in client.get_inference_statistics(model, version)["model_stats"]:
        assert isinstance(entry["name"], str)
        assert isinstance(entry["version"], str)
        counts = [entry["inference_count"], entry["execution_count"]]
        for part in ("success", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit"):
            counts += entry["inference_stats"][part].values()
        assert all(type(count) is int and count >= 0 for count in counts)
    reply = client.infer(model, [tensor("sport: a", "tech: b")], model_version=version)
    assert {entry["name"] for entry in reply.get_response()["outputs"]} == {
        entry["name"] for entry in config["output"]
    }


def test_statistics_count_what_was_asked(client: Any) -> None:
    """Texts, requests, refusals and calls, of one model and of all, with and without a version."""

    def counted() -> dict[str, Any]:
        found = client.get_inference_statistics()["model_stats"]
        return {entry["name"]: entry for entry in found}

    before = counted()
    for _ in range(3):
        client.infer("fake-other", [tensor("sport: a", "tech: b")])
    client.infer("cascade", [tensor(*(f"tech: story {n}" for n in range(40)))])
    with pytest.raises(InferenceServerException, match="deadline"):
        client.infer("fake-large", [tensor("a")], timeout=1)
    after = counted()
    assert list(after) == list(MODELS)

    def grown(model: str, *path: str) -> int:
        new, old = after[model], before[model]
        for key in path:
            new, old = new[key], old[key]
        return int(new) - int(old)

    assert grown("fake-other", "inference_count") == 6
    assert grown("fake-other", "execution_count") == 3
    for part in ("success", "queue", "compute_infer"):
        assert grown("fake-other", "inference_stats", part, "count") == 3
        assert grown("fake-other", "inference_stats", part, "ns") > 0
    assert grown("cascade", "inference_count") == 40
    assert grown("cascade", "execution_count") == 1
    assert grown("fake-small", "inference_count") == 40
    assert 0 < grown("fake-large", "inference_count") < 41
    assert grown("fake-large", "inference_stats", "success", "count") == 0
    assert grown("fake-large", "inference_stats", "fail", "count") == 1
    for version in ("", "1"):
        found = client.get_inference_statistics("fake-other", version)
        assert found["model_stats"] == [after["fake-other"]]
        schemas.Statistics.model_validate(found)


def test_what_is_served_can_be_listed_in_three_forms(client: Any, counting: str) -> None:
    """Triton's repository index, the names, and OpenAI's list."""
    index = client.get_model_repository_index()
    assert index == [{"name": name, "version": "1", "state": "READY"} for name in MODELS]
    ready = httpx.post(f"{counting}/v2/repository/index", json={"ready": True})
    assert ready.json() == index
    assert httpx.get(f"{counting}/v2/models").json() == {"models": list(MODELS)}
    listed = httpx.get(f"{counting}/v1/models").json()
    schemas.ModelList.model_validate(listed)
    assert [entry["id"] for entry in listed["data"]] == list(MODELS)
    for body, status in ((b'{"ready": 1}', 400), (b"[]", 400), (b"x" * 5000, 413)):
        assert httpx.post(f"{counting}/v2/repository/index", content=body).status_code == status


def test_one_model_is_described_as_other_clients_ask_for_it(counting: str) -> None:
    """OpenAI's `models.retrieve` reads its list's entry, KServe's first protocol whether it is ready."""
    one = httpx.get(f"{counting}/v1/models/cascade").json()
    listed = httpx.get(f"{counting}/v1/models").json()["data"][0]
    assert one == {**listed, "name": "cascade", "ready": True}
    assert schemas.OneModel.model_validate(one).ready
    unknown = httpx.get(f"{counting}/v1/models/nobody")
    assert unknown.status_code == 404
    assert "serving: cascade" in unknown.json()["error"]
    assert httpx.get(counting).json() == {**httpx.get(f"{counting}/v2").json(), "status": "alive"}


@pytest.mark.parametrize(
    ("made_at", "created"), [("2026-11-28T12:00:00+00:00", 1795867200), ("", 0), ("yesterday", 0)]
)
def test_the_list_says_when_the_family_was_made(made_at: str, created: int) -> None:
    """As a Unix second, which typed clients of OpenAI's API insist on; 0 where it is not known."""
    assert oip_models.openai_list([("m", made_at)])["data"][0]["created"] == created


def test_the_index_leaves_out_what_does_not_answer_where_asked() -> None:
    """A model that does not answer is listed with a reason, or not at all."""
    models = [("cascade", False), ("linear", True)]
    everything = oip_models.repository_index(models, only_ready=False)
    assert [(entry["name"], entry["state"]) for entry in everything] == [
        ("cascade", "UNAVAILABLE"),
        ("linear", "READY"),
    ]
    assert "reason" in everything[0]
    assert oip_models.repository_index(models, only_ready=True) == everything[1:]


@pytest.mark.parametrize("call", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
@pytest.mark.parametrize(("model", "version"), [("nobody", ""), ("cascade", "2"), ("nobody", "1")])
def test_unknown_models_and_versions_are_refused_with_what_there_is(
    client: Any, call: str, model: str, version: str
) -> None:
    """The error names what is served; is_model_ready is a plain no."""
    with pytest.raises(InferenceServerException, match=r"unknown model .*; serving: cascade"):
        getattr(client, call)(model, version)
    assert not client.is_model_ready(model, version)


@pytest.mark.parametrize(
    ("call", "arguments", "words"),
    [
        ("load_model", ["cascade"], "sluice policy push"),
        ("unload_model", ["cascade"], "sluice policy push"),
        ("get_system_shared_memory_status", [], "shared memory"),
        ("register_system_shared_memory", ["r", "/r", 8], "shared memory"),
        ("unregister_system_shared_memory", ["r"], "shared memory"),
        ("get_cuda_shared_memory_status", [], "shared memory"),
        ("register_cuda_shared_memory", ["r", b"x", 0, 8], "shared memory"),
        ("unregister_cuda_shared_memory", [], "shared memory"),
        ("get_trace_settings", [], "tracing is not offered"),
        ("update_trace_settings", ["cascade", {"trace_level": "OFF"}], "tracing is not offered"),
        ("get_log_settings", [], "operator's"),
        ("update_log_settings", [{"log_info": True}], "operator's"),
    ],
)
def test_calls_that_are_not_offered_say_why(client: Any, call: str, arguments: list[Any], words: str) -> None:
    """400 with a reason, which tritonclient shows its user."""
    with pytest.raises(InferenceServerException, match=words) as caught:
        getattr(client, call)(*arguments)
    assert caught.value.status() == "400"


@pytest.mark.parametrize("binary", [True, False])
def test_classes_can_be_asked_for(client: Any, binary: bool) -> None:
    """`probabilities` with class_count: the surest classes, "value:index:label", as in Triton."""
    plain = client.infer("fake-other", [tensor("sport: a", "tech: b", column=True)])
    rows = plain.as_numpy("probabilities")
    labels = client.get_model_metadata("fake-other")["parameters"]["labels"]
    for asked, given in ((1, 1), (2, 2), (10_000, len(labels))):
        wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=asked)
        reply = client.infer("fake-other", [tensor("sport: a", "tech: b")], outputs=[wanted])
        found = reply.as_numpy("probabilities")
        assert found.shape == (2, given)
        for row, entries in zip(rows, found, strict=True):
            read = [(entry.decode() if binary else entry).split(":", 2) for entry in entries]
            assert [labels[int(index)] for _, index, _ in read] == [label for _, _, label in read]
            assert [int(index) for _, index, _ in read] == (-row).argsort(kind="stable")[:given].tolist()
            assert [float(value) for value, _, _ in read] == pytest.approx(
                sorted(row)[::-1][:given], abs=1e-6
            )


def test_classes_of_another_output_and_shared_memory_are_refused(client: Any) -> None:
    """The refusal says where there are classes, and that tensors travel in the body."""
    classes = triton.InferRequestedOutput("label", class_count=2)
    with pytest.raises(InferenceServerException, match="top_k"):
        client.infer("cascade", [tensor("a")], outputs=[classes])
    shared = triton.InferRequestedOutput("label")
    shared.set_shared_memory("r", 8)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.infer("cascade", [tensor("a")], outputs=[shared])
    given = triton.InferInput("text", [1], "BYTES")
    given.set_shared_memory("r", 8)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.infer("cascade", [given])


def test_asynchronous_calls_and_what_a_stateless_model_may_ignore(client: Any) -> None:
    """async_infer with sequence, priority, custom parameters and a subset of outputs."""
    asked = [
        client.async_infer(
            "fake-other", [tensor(f"sport: {n}")], outputs=[triton.InferRequestedOutput("label")],
            sequence_id=7, sequence_start=n == 0, sequence_end=n == 7, priority=2, timeout=20_000_000,
            parameters={"mine": "x"}, headers={"X-Mine": "1"}, query_params={"q": "1"},
        )
        for n in range(8)
    ]  # fmt: skip
    for pending in asked:
        outputs = pending.get_result().get_response()["outputs"]
        assert [output["name"] for output in outputs] == ["label"]


def test_two_tensors_are_refused_by_name(client: Any) -> None:
    """Several texts are one tensor, and the refusal says so."""
    other = triton.InferInput("input-0", [1], "BYTES")
    other.set_data_from_numpy(np.array(["a"], dtype=np.object_))
    with pytest.raises(InferenceServerException, match=r"one tensor of shape \[N\]"):
        client.infer("cascade", [tensor("a"), other])
    with pytest.raises(InferenceServerException, match="named 'text', not 'input-0'"):
        client.infer("cascade", [other])


def test_extensions_name_what_is_offered(served: Served) -> None:
    """No extension is claimed whose calls are refused."""
    found = httpx.get(f"{served.url}/v2").json()["extensions"]
    assert found == ["binary_tensor_data", "classification", "model_configuration", "statistics"]
    assert oip.VERSION == "1"
