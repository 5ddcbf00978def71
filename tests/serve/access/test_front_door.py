"""Keys at the front door: who is let in, and how others are told, on a real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from serve.access.gate import Gate
from serve.access.key_store import KeyStore, open_keys
from serve.access.keys import KeyLimits
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.settings.access import AccessSettings
from serve.settings.limits import RequestLimits
from tests.serve.parts import FakeFolder, Kept, serving, snapshot_of, two_stage_policy

TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["sport: a"]}
TOPICS = ["sport", "tech"]
QUESTION = {"type": "choice", "instructions": "?", "choices": [{"value": topic} for topic in TOPICS]}
ROUTES = [
    ("POST", "/v1/classify", {"inputs": "sport: a"}),
    ("POST", "/v2/models/cascade/infer", {"inputs": [TENSOR]}),
    ("POST", "/v2/models/cascade/versions/1/infer", {"inputs": [TENSOR]}),
    ("POST", "//v1/classify", {"inputs": "sport: a"}),
    ("POST", "/v1/decisions", {"model": "m", "input": "sport: a", "questions": [QUESTION]}),
    ("POST", "/v1/systemone", {"state": "sport: a", "questions": {"topic": QUESTION | {"criteria": TOPICS}}}),
    ("GET", "/v2", None),
    ("GET", "/v2/models", None),
    ("GET", "/v2/models/cascade", None),
    ("GET", "/v1/models", None),
    ("GET", "/v2/models/stats", None),
    ("POST", "/v2/repository/index", None),
    ("GET", "/metrics", None),
    ("GET", "/docs", None),
    ("GET", "/openapi.json", None),
    ("GET", "/", None),
    ("GET", "/nowhere", None),
    ("OPTIONS", "/v1/classify", None),
    ("HEAD", "/v2/models", None),
]


@dataclass(frozen=True)
class Door:
    """A gateway with keys; `shell` is its application as Ray's own proxy has it called."""

    url: str
    shell: str
    infer: str
    admin: str
    gate: Gate
    store: KeyStore


@pytest.fixture(scope="module")
def door(fake_folder: FakeFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The gateway on fakes, with an inference key and an admin key."""
    store = open_keys(str(tmp_path_factory.mktemp("state")))
    infer, _ = store.create("web", ("infer",), KeyLimits())
    admin, book = store.create("ops", ("admin",), KeyLimits())
    gate = Gate()
    gate.take(book)
    recorder, limits = Kept(), RequestLimits(max_body_bytes=4096)
    snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
    app = Gateway(
        DataPlane(lambda: snapshot, limits, recorder), limits, recorder, lambda: b"up 1\n", gate=gate
    )
    with serving(app) as url, serving(app.shell) as shell:
        yield Door(url, shell, infer, admin, gate, store)


def bearer(key: str) -> dict[str, str]:
    """The header."""
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_no_route_answers_without_a_valid_key(door: Door, method: str, path: str, body: object) -> None:
    """Unknown paths and other spellings too: a stranger learns nothing but that a key is needed."""
    wrong: tuple[dict[str, str], ...] = ({}, bearer("sluice_abc_def"), {"authorization": "Basic x"})
    for url, headers in [(url, headers) for url in (door.url, door.shell) for headers in wrong]:
        reply = httpx.request(method, url + path, json=body, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert reply.headers["x-request-id"]
        if method != "HEAD":
            assert list(reply.json()) == ["error"]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_every_route_answers_to_a_key(door: Door, method: str, path: str, body: object) -> None:
    """With a key all is as without keys."""
    for url in (door.url, door.shell):
        reply = httpx.request(method, url + path, json=body, headers=bearer(door.infer))
        assert reply.status_code == (404 if path == "/nowhere" else 200)


@pytest.mark.parametrize(("method", "path", "body"), ROUTES[:4])
def test_a_key_of_another_scope_gets_403(door: Door, method: str, path: str, body: object) -> None:
    """An admin key asks nothing of models; the reply names the scope that is missing."""
    for url in (door.url, door.shell):
        reply = httpx.request(method, url + path, json=body, headers=bearer(door.admin))
        assert reply.status_code == 403
        assert 'scope="infer"' in reply.headers["www-authenticate"]
        assert "infer" in reply.json()["error"]


def test_health_stays_open(door: Door) -> None:
    """Load balancers and orchestrators ask without a key."""
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert httpx.get(door.url + path).status_code == 200
        assert httpx.get(door.shell + path).status_code == 200


def test_a_strangers_body_is_not_waited_for(door: Door) -> None:
    """The refusal comes before the body: what was announced never has to be sent, or held."""
    host, _, port = door.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{")
        assert client.recv(100).startswith(b"HTTP/1.1 401 ")


def test_tritons_client_is_told_in_its_own_form(door: Door) -> None:
    """The Open Inference Protocol's error body reaches its client as its exception."""
    client = triton.InferenceServerClient(door.url.removeprefix("http://"))
    tensor = triton.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"sport: a"], dtype=object))
    with pytest.raises(InferenceServerException, match="a key is needed"):
        client.infer("cascade", [tensor])
    answer = client.infer("cascade", [tensor], headers={"authorization": f"Bearer {door.infer}"})
    assert answer.as_numpy("label").shape == (1,)


def test_settings_open_metrics_and_docs_and_no_more(fake_folder: FakeFolder, door: Door) -> None:
    """What is opened is open without a key; the rest is not."""
    recorder, limits = Kept(), RequestLimits()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
    app = Gateway(
        DataPlane(lambda: snapshot, limits, recorder), limits, recorder, lambda: b"up 1\n", gate=door.gate,
        access=AccessSettings(open_metrics=True, open_docs=True),
    )  # fmt: skip
    with serving(app) as url:
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert httpx.get(url + path).status_code == 200
        assert httpx.get(f"{url}/v2/models").status_code == 401


def test_without_keys_nobody_is_asked(fake_folder: FakeFolder) -> None:
    """A gateway that never had a key answers everybody, also those who show one."""
    recorder, limits = Kept(), RequestLimits()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
    app = Gateway(DataPlane(lambda: snapshot, limits, recorder), limits, recorder, lambda: b"")
    with serving(app) as url:
        for headers in ({}, bearer("sluice_abc_def")):
            assert httpx.post(f"{url}/v1/classify", json={"inputs": "a"}, headers=headers).status_code == 200


def test_a_stranger_cannot_tell_a_path_that_exists(door: Door) -> None:
    """The refusals of a known and of an unknown path are the same, but for the request's id."""
    known, unknown = (httpx.get(door.url + path) for path in ("/v2/models", "/v2/mo"))
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)


def test_the_folder_of_keys_is_the_states(door: Door, tmp_path: Path) -> None:
    """A gateway's keys lie beside its revisions."""
    assert open_keys(str(tmp_path)).latest() is None
