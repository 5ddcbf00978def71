"""What clients of every kind send that is not quite as described: answered, or refused clearly."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import socket
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.wire.schemas import ErrorBody, InferReply
from tests.serve.parts import Served

GETS = (
    "/", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v1/models", "/v2/models/stats",
    "/v1/models/cascade",
    "/v2/models/cascade", "/v2/models/cascade/ready", "/v2/models/cascade/config", "/v2/models/cascade/stats",
    "/v2/models/cascade/versions/1", "/metrics", "/openapi.json", "/docs",
)  # fmt: skip
PARTS = (
    "v1", "v2", "models", "cascade", "versions", "1", "stats", "config", "ready", "repository", "index",
    "load", "metrics", "-", "..", "%2e%2e", "%2F", "%FF", "%00", "é", "a:predict", "",
)  # fmt: skip
ASK = b'{"inputs": "sport: a"}'
COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    """An HTTP client with kept connections."""
    with httpx.Client(base_url=served.url, timeout=30) as opened:
        yield opened


def talk(served: Served, sent: bytes, *, until: bytes = b"}") -> bytes:
    """Send bytes and return what comes back, up to its end or to `until`."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(sent)
        got = b""
        while until not in got and (part := raw.recv(65536)):
            got += part
        return got


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    """Status, type and length are the same; the connection goes on."""
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize("path", GETS)
def test_slashes_too_many_mean_nothing(client: httpx.Client, served: Served, path: str) -> None:
    """A slash at the end, and two where a base URL that ended in one was joined."""
    plain = client.get(path)
    assert client.get(f"{path.rstrip('/')}/").content == plain.content
    raw = talk(served, f"GET /{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode(), until=b"\0")
    assert raw.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/v1/classify/", "/v1//classify", "/v2/models/cascade/infer/"])
def test_slashes_too_many_mean_nothing_where_work_is_done(client: httpx.Client, path: str) -> None:
    """The hot routes answer by way of the shell then."""
    body: Any = json.loads(ASK)
    if "infer" in path:
        body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["sport: a"]}]}
    assert client.post(path, json=body).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/classify", "POST, OPTIONS"),
        ("/v2/models/cascade/infer", "POST, OPTIONS"),
        ("/v2/repository/index", "POST, OPTIONS"),
        ("/v2/models/cascade", "GET, HEAD, OPTIONS"),
        ("/v2/logging", "GET, HEAD, POST, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
    ],
)
def test_allow_names_every_method_of_a_path(client: httpx.Client, path: str, methods: str) -> None:
    """OPTIONS is answered, and a 405 says what would do."""
    asked = client.options(path)
    assert (asked.status_code, asked.headers["allow"], asked.content) == (200, methods, b"")
    refused = client.request("PATCH", path)
    assert (refused.status_code, refused.headers["allow"]) == (405, methods)
    assert methods in ErrorBody.model_validate(refused.json()).error


def test_a_wrong_path_lists_what_there_is(client: httpx.Client) -> None:
    """Every path of the description, so that a typing error is seen at once; OPTIONS too."""
    refused = client.get("/v1/clasify")
    assert refused.status_code == 404
    for path in json.loads(COMMITTED.read_text("utf-8"))["paths"]:
        assert path in refused.json()["error"]
    assert client.options("/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/models/cascade:predict", "second"),
        ("/v1/chat/completions", "generates nothing"),
        ("/v2/models/cascade/generate", "generates nothing"),
    ],
)
def test_calls_of_other_servers_are_refused_with_a_way_out(
    client: httpx.Client, path: str, words: str
) -> None:
    """The refusal names what is offered instead."""
    refused = client.post(path, json={"instances": ["a"]})
    assert refused.status_code == 400
    assert words in ErrorBody.model_validate(refused.json()).error


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (ASK, {}),
        (ASK, {"content-type": "application/json; charset=UTF-8"}),
        (ASK, {"content-type": 'text/json;charset="utf-8"'}),
        (ASK, {"content-type": "application/x-www-form-urlencoded"}),
        (ASK, {"content-type": "application/vnd.api+json"}),
        (codecs.BOM_UTF8 + ASK, {}),
        (b"\r\n " + ASK + b"\n", {}),
        (gzip.compress(ASK, mtime=0), {"content-encoding": "gzip"}),
        (gzip.compress(ASK, mtime=0), {"content-encoding": "x-gzip"}),
        (gzip.compress(ASK[:5], mtime=0) + gzip.compress(ASK[5:], mtime=0), {"content-encoding": "gzip"}),
        (ASK, {"content-type": "application/json, application/json; charset=utf-8"}),
        (b'{"inputs": "a", "model": null, "top_k": null, "deadline_ms": null}', {}),
        (zlib.compress(ASK), {"content-encoding": "deflate"}),
        (zlib.compress(ASK)[2:-4], {"content-encoding": "Deflate"}),
        (ASK, {"content-encoding": "identity", "accept": "text/event-stream", "accept-encoding": "br"}),
        (ASK, {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "cookie": "a=b"}),
        (b'{"inputs": "\\ud83d\\ude00 \\u0000 caf\\u00e9"}', {}),
        (b'{"inputs": "a", "inputs": "sport: a"}', {}),
        (b'{"inputs": "a", "deadline_ms": 123456789012345678901234567890}', {}),
        (b'{"inputs": "a", "top_k": 4294967296}', {}),
        (b'{"inputs": "a", "top_k": 18446744073709551615}', {}),
    ],
)  # fmt: skip
def test_bodies_that_mean_the_same_are_read(
    client: httpx.Client, body: bytes, headers: dict[str, str]
) -> None:
    """Types, encodings, byte order marks and numbers that clients send in practice."""
    reply = client.post("/v1/classify", content=body, headers=headers)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (ASK.decode().encode("utf-16"), {}, 400, "UTF-16"),
        (b'{"inputs": "\\ud83d"}', {}, 400, "surrogate"),
        (b'{"inputs": "\xed\xa0\xbd"}', {}, 400, "byte 0xed at 12"),
        (gzip.compress(ASK, mtime=0), {}, 400, "say so with Content-Encoding: gzip"),
        (gzip.compress(ASK, mtime=0) + b"{}", {"content-encoding": "gzip"}, 400, "bytes follow"),
        (gzip.compress(ASK, mtime=0) * 17, {"content-encoding": "gzip"}, 400, "more than 16 members"),
        (ASK, {"content-type": "application/json, multipart/form-data; boundary=x"}, 415, "Content-Type"),
        (b'{"inputs": "a", "deadline_ms": 1e999}', {}, 400, "infinity"),
        (b'{"inputs": "a", "deadline_ms": NaN}', {}, 400, "not JSON"),
        (b'{"inputs": "a", "top_k": 1e2}', {}, 400, "top_k"),
        (b'{"inputs": "a", "top_k": true}', {}, 400, "top_k"),
        (b'{"inputs": ' + b"[" * 1500 + b"]" * 1500 + b"}", {}, 400, "not JSON"),
        (b"inputs=sport", {"content-type": "application/x-www-form-urlencoded"}, 400, "not JSON"),
        (b"{'inputs': 'a'}", {}, 400, "not JSON"),
        (ASK, {"content-type": "application/json; charset=latin-1"}, 415, "charset"),
        (ASK, {"content-type": "application/xml"}, 415, "Content-Type"),
        (ASK, {"content-encoding": "zstd"}, 415, "gzip"),
        (ASK, {"content-encoding": "gzip, gzip"}, 415, "gzip"),
        (gzip.compress(b" " * 10_000_000, mtime=0), {"content-encoding": "gzip"}, 413, "larger"),
        (zlib.compress(b" " * 10_000_000), {"content-encoding": "deflate"}, 413, "larger"),
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_read_are_refused_with_the_reason(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    """In the form of all errors; a 415 says which encodings there are."""
    reply = client.post("/v1/classify", content=body[:4096], headers=headers)
    assert reply.status_code == status
    assert words in ErrorBody.model_validate(reply.json()).error
    if status == 415:
        assert reply.headers["accept-encoding"] == "gzip, deflate, identity"


def test_old_and_careful_clients_are_answered(served: Served) -> None:
    """HTTP/1.0, `Expect: 100-continue`, chunks with extensions and trailers, and no type at all."""
    length = b"content-length: %d\r\n" % len(ASK)
    old = talk(served, b"POST /v1/classify HTTP/1.0\r\n" + length + b"\r\n" + ASK, until=b"\0")
    assert old.startswith(b"HTTP/1.1 200")
    careful = talk(
        served, b"POST /v1/classify HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n" + length + b"\r\n",
        until=b"\r\n\r\n",
    )  # fmt: skip
    assert careful.startswith(b"HTTP/1.1 100")
    chunks = b"%x;a=b\r\n%s\r\n%x\r\n%s\r\n0\r\nx-trailer: 1\r\n\r\n" % (5, ASK[:5], len(ASK) - 5, ASK[5:])
    chunked = talk(
        served, b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
    )
    assert chunked.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/classify", 413), ("/nowhere", 404), ("/v2/repository/models/m/load", 400)]
)
def test_a_body_that_was_not_read_does_not_reach_the_next_request(
    served: Served, path: str, status: int
) -> None:
    """An early refusal leaves the connection in step: the request behind it is answered as itself."""
    sent = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n" % path.encode() + b"a" * 200_000
    following = b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    got = talk(served, sent + following, until=b'{"live":true}')
    assert got.startswith(b"HTTP/1.1 %d" % status)
    assert got.count(b"HTTP/1.1 ") == 2
    assert got.endswith(b'{"live":true}')


@pytest.mark.parametrize("outputs", [None, [{"name": "label", "parameters": {"binary_data": False}}]])
def test_requests_in_the_shape_of_kserves_and_mlservers_clients_are_answered(
    client: httpx.Client, outputs: Any
) -> None:
    """As `InferenceRESTClient` of kserve 0.21 sends it, which repeats the name and may add null members."""
    text = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["sport: a", "tech: b"]}
    body = {
        "id": "b4e2", "model_name": "cascade", "model_version": None, "outputs": outputs,
        "inputs": [text | {"parameters": {"content_type": "str"}}],
        "parameters": {"content_type": "str", "headers": {}},
    }  # fmt: skip
    reply = client.post("/v2/models/cascade/infer", json=body)
    assert reply.status_code == 200
    assert InferReply.model_validate(reply.json()).id == "b4e2"


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]),
    st.lists(
        st.sampled_from(PARTS) | st.text(max_size=5),
        max_size=7,
    ),
    st.binary(max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_no_path_makes_the_service_fail(
    client: httpx.Client, method: str, parts: list[str], body: bytes
) -> None:
    """Whatever is asked for, the reply is a 2xx, or a 4xx in the form of all errors (HEAD has no body)."""
    try:
        request = client.build_request(method, "/" + "/".join(parts).lstrip("/"), content=body)
    except httpx.InvalidURL:
        return
    reply = client.send(request)
    assert reply.status_code < 300 or 400 <= reply.status_code < 500, (method, request.url, reply.text)
    if reply.status_code >= 400 and method != "HEAD":
        ErrorBody.model_validate(reply.json())


class Links(HTMLParser):
    """Collects what a page would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag and its addresses."""
        self.tags.add(tag)
        self.targets += [value or "" for name, value in attrs if name in {"src", "href", "action"}]


def test_the_page_to_read_needs_no_other_host(client: httpx.Client) -> None:
    """No script, no address outside; the policy of the page forbids both; every path and refusal is on it."""
    reply = client.get("/docs")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    links = Links()
    links.feed(reply.text)
    assert not links.tags & {"script", "link", "img", "iframe"}
    assert links.targets == ["openapi.json"]
    assert not re.search(r"@import|url\(", reply.text)
    document = client.get("/openapi.json").json()
    assert document == json.loads(COMMITTED.read_text("utf-8"))
    for path, operations in document["paths"].items():
        assert path in reply.text
        for operation in operations.values():
            assert operation["summary"].replace("'", "&#x27;") in reply.text


def test_the_commands_of_the_page_work(client: httpx.Client) -> None:
    """Each `curl` is in the form of the interface."""
    page = client.get("/docs").text.replace("&#x27;", "'").replace("&quot;", '"')
    found = re.findall(r"curl http://localhost:8000(\S+) -d '(.*)'</pre>", page)
    assert {path for path, _ in found} >= {"/v1/classify", "/v2/models/cascade/infer", "/v2/repository/index"}
    for path, body in found:
        assert client.post(path, content=body.encode()).status_code == 200, (path, body)
