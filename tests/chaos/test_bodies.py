"""Thousands of generated bodies over every wire form through HAProxy: an answer or a refusal, never a 5xx."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import schemathesis
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from serve.wire.decisions.errors import PATHS
from tests.chaos.house import House
from tests.chaos.record import Record

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
MODELS = ("cascade", "fake-small", "fake-other", "fake-large")
QUESTION = {"type": "choice", "instructions": "?", "choices": [{"value": "sport"}, {"value": "tech"}]}
NAMED = {"type": "score", "instructions": "?", "criteria": ["tech", "sport"]}
BINARY = "Inference-Header-Content-Length"


def examples(count: int) -> settings:
    """Return settings for so many examples, none kept for another run."""
    return settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@dataclass
class Sender:
    """Sends bodies over one connection after another and counts what came back."""

    url: str
    told: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _connection: HTTPConnection | None = None

    def send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        """Send one request as it is, and hold the reply to what is promised."""
        status, reply = self._exchange(method, path, body, headers)
        self.told[status] += 1
        timed = status == 504 and (b"deadline" in body or b"timeout" in body)
        if status >= 500 and not timed:
            self.wrong.append(f"{status} for {method} {path} {body[:300]!r}: {reply[:200]!r}")
        elif status >= 400 and method != "HEAD":
            self._refusal(status, path, body, reply)

    def _refusal(self, status: int, path: str, body: bytes, reply: bytes) -> None:
        try:
            told = json.loads(reply)["error"]
            wrong = not isinstance(told["message"] if path in PATHS else told, str)
        except (ValueError, LookupError, TypeError):
            wrong = True
        if wrong:
            self.wrong.append(f"{status} for {path} {body[:300]!r} is no refusal of ours: {reply[:200]!r}")

    def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        for last in (False, True):
            if self._connection is None:
                place = urlsplit(self.url)
                self._connection = HTTPConnection(str(place.hostname), place.port, timeout=30)
            try:
                self._connection.request(method, path, body, headers)
                reply = self._connection.getresponse()
                return reply.status, reply.read()
            except (OSError, HTTPException):
                self._connection.close()
                self._connection = None
                if last:
                    raise
        raise AssertionError

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()


@pytest.fixture
def sender(house: House) -> Any:
    """A sender to the gateway."""
    made = Sender(house.url)
    yield made
    made.close()


def test_bodies_by_the_openapi_document(sender: Sender, record: Record, whole: bool) -> None:
    """What the committed document allows, on every path (in short: every POST), never breaks a stage."""
    schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text()))
    operations: list[Any] = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    posts = [operation for operation in operations if operation.method.upper() == "POST"]
    operations = operations if whole else posts
    each = {id(operation): (850 if operation in posts else 20) if whole else 1 for operation in operations}
    for operation in operations:

        @examples(each[id(operation)])
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            _send_case(sender, case)

        ask()
    record.bodies["schemathesis, by docs/openapi.json"] = sender.told
    assert sender.wrong == []


def _send_case(sender: Sender, case: Any) -> None:
    path = case.path
    for name, value in (case.path_parameters or {}).items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    headers = {"Content-Type": case.media_type or "application/json"}
    body = b"" if isinstance(case.body, schemathesis.core.NotSet) else _as_bytes(case.body)
    sender.send(case.method.upper(), path, body, headers)


def _as_bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return json.dumps(body).encode()


@st.composite
def binary_bodies(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """A request as tritonclient makes it, with some of its lengths, names and bytes changed."""
    texts = draw(st.lists(st.text(max_size=20), min_size=1, max_size=4))
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=np.object_), binary_data=True)
    wanted = [
        triton.InferRequestedOutput(
            name, binary_data=draw(st.booleans()), class_count=draw(st.integers(0, 3))
        )
        for name in draw(
            st.lists(st.sampled_from(["label", "confidence", "probabilities", "no"]), max_size=3)
        )
    ]
    body, length = triton.InferenceServerClient.generate_request_body([tensor], outputs=wanted or None)
    assert length is not None
    head, tail = body[:length], body[length:]
    value = json.loads(head)
    given_tensor = value["inputs"][0]
    odd = st.one_of(st.integers(-2, 2**33), st.none(), st.text(max_size=3), st.lists(st.integers(-1, 5)))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        if change == "size":
            given_tensor["parameters"] = {"binary_data_size": draw(odd)}
        elif change == "shape":
            given_tensor["shape"] = draw(st.lists(st.integers(-1, 2**40), max_size=3))
        elif change == "type":
            given_tensor["datatype"] = draw(st.sampled_from(["BYTES", "FP32", "INT64", "BOOL", "", "bytes"]))
        elif change == "twice":
            value["inputs"].append(given_tensor)
        elif change == "data":
            given_tensor["data"] = draw(st.lists(st.text(max_size=3), max_size=3))
        elif change == "cut":
            tail = tail[: draw(st.integers(0, len(tail)))]
        elif change == "bytes":
            tail = draw(st.binary(max_size=40))
        elif change == "more":
            tail += draw(st.binary(max_size=8))
    head = json.dumps(value).encode()
    declared = draw(st.one_of(st.just(str(len(head))), st.integers(-1, 2 * len(head)).map(str), st.just("x")))
    return head + tail, {"Content-Type": "application/octet-stream", BINARY: declared}


CHANGES = ("size", "shape", "type", "twice", "data", "cut", "bytes", "more")


def test_binary_tensors(sender: Sender, record: Record, whole: bool) -> None:
    """The binary extension with wrong sizes, shapes, types and bytes is answered or refused."""

    @examples(4000 if whole else 30)
    @given(request=binary_bodies(), model=st.sampled_from(MODELS))
    def ask(request: tuple[bytes, dict[str, str]], model: str) -> None:
        body, headers = request
        sender.send("POST", f"/v2/models/{model}/infer", body, headers)

    ask()
    record.bodies["hypothesis, binary tensors"] = sender.told
    assert sender.told[200] > 0
    assert sender.wrong == []


def test_real_bodies_with_bytes_changed(sender: Sender, record: Record, whole: bool) -> None:
    """Bytes of good requests of every form are replaced, removed, repeated and swapped."""
    luck = random.Random(11)
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["sport: a", "tech: b"]}
    forms = [
        ("/v1/classify", {"inputs": ["sport: a", "b"], "model": "cascade", "top_k": 2, "deadline_ms": 5000}),
        ("/v1/classify", {"inputs": "business: \u20ac\U0001f680", "model": "fake-other"}),
        ("/v2/models/cascade/infer", {"id": "7", "inputs": [tensor], "parameters": {"priority": 1}}),
        (
            "/v2/models/fake-large/infer",
            {"inputs": [tensor], "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}]},
        ),
        ("/v1/decisions", {"model": "cascade", "input": "sport: a", "questions": [QUESTION]}),
        ("/v1/systemone", {"state": {"text": "sport: a"}, "questions": {"topic": NAMED}}),
    ]
    for n in range(3500 if whole else 60):
        path, value = forms[n % len(forms)]
        body = json.dumps(value, ensure_ascii=n % 2 == 0).encode()
        sender.send("POST", path, _changed(body, luck), {"Content-Type": "application/json"})
    record.bodies["good bodies with bytes changed"] = sender.told
    assert sender.told[400] > 0
    assert sender.wrong == []


def _changed(body: bytes, luck: random.Random) -> bytes:
    found = bytearray(body)
    for _ in range(luck.randint(1, 4)):
        if not found:
            break
        at, to = sorted((luck.randrange(len(found)), luck.randrange(len(found))))
        kind = luck.randrange(5)
        if kind == 0:
            found[at] = luck.randrange(256)
        elif kind == 1:
            del found[at : at + luck.randint(1, 4)]
        elif kind == 2:
            found[at:at] = found[at:to]
        elif kind == 3:
            found[at:at] = luck.choice(
                [b"\x00", b'"', b"{", b"]", b"1e999", b"\\ud83d", b"-", b"null", b"\xff"]
            )
        else:
            found[at], found[to] = found[to], found[at]
    return bytes(found)
