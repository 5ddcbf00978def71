"""The short way of the fast routes: the same answers as through ASGI, whatever way the bytes arrive."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import weakref
from collections.abc import Iterator, Sequence

import pytest
import uvicorn
from uvicorn.server import ServerState

from runtime.api import Logits
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.http.connection import Connection, connections_to
from serve.settings.limits import RequestLimits
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot
from tests.serve.parts import FakeFolder, Served, serving, snapshot_of, two_stage_policy


def request(
    body: bytes,
    *more: bytes,
    path: bytes = b"/v1/classify",
    version: bytes = b"1.1",
    length: int | None = None,
) -> bytes:
    """A POST as bytes."""
    head = [b"POST %b HTTP/%b" % (path, version), b"host: here", b"content-type: application/json"]
    if length is None:
        length = len(body)
    if length >= 0:
        head.append(b"content-length: %d" % length)
    return b"\r\n".join([*head, *more, b"", body])


TEXT = json.dumps({"inputs": "sport: story 1"}).encode()


class Client:
    """A connection of a client that writes bytes as it likes."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.read = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def reply(self) -> tuple[int, dict[str, str], bytes]:
        """Read one reply."""
        status = int(self.read.readline().split()[1])
        headers = {}
        while (line := self.read.readline().strip()) != b"":
            name, _, value = line.partition(b": ")
            headers[name.decode()] = value.decode()
        return status, headers, self.read.read(int(headers["content-length"]))

    def is_closed(self) -> bool:
        """Whether the server has closed."""
        return self.read.read(1) == b""


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """A connection to the gateway."""
    opened = Client(served.url)
    yield opened
    opened.socket.close()


def test_a_reply_has_a_type_a_length_and_an_id_and_the_connection_stays(client: Client) -> None:
    """Two requests over one connection, each answered whole."""
    for _ in range(2):
        client.send(request(TEXT))
        status, headers, body = client.reply()
        assert status == 200
        assert json.loads(body)["outputs"][0]["variant"].startswith("fake-")
        assert set(headers) == {"content-type", "content-length", "x-request-id"}


QUESTION = {"type": "choice", "instructions": "?", "choices": [{"value": "sport"}, {"value": "tech"}]}
ASKED = json.dumps({"model": "m", "input": "sport: story 1", "questions": [QUESTION]}).encode()


def test_decisions_go_the_short_way_too(client: Client) -> None:
    """With what is known of the answer in headers, and refusals in the form of the path."""
    for body, status in ((ASKED, 200), (b"{}", 400)):
        client.send(request(body, path=b"/v1/decisions"))
        assert client.reply()[0] == status
    client.send(request(ASKED, path=b"/v1/decisions"))
    assert {"x-request-id", "x-sluice-variant", "x-sluice-escalated", "x-sluice-policy"} <= set(
        client.reply()[1]
    )


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.sent += data

    def is_closing(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """There is nothing to close."""

    def pause_reading(self) -> None:
        """Bytes come when the test says so."""

    def resume_reading(self) -> None:
        """Bytes come when the test says so."""


def connection_over(wire: Wire, fake_folder: FakeFolder) -> Connection:
    """A connection of a gateway on fakes to a client behind that transport."""
    snapshot = snapshot_of(fake_folder, two_stage_policy(), NoRecorder())
    limits = RequestLimits()
    gateway = Gateway(DataPlane(lambda: snapshot, limits, NoRecorder()), limits, NoRecorder(), lambda: b"")
    config = uvicorn.Config(gateway, http=connections_to(gateway.hot), lifespan="off", log_config=None)
    config.load()
    connection = connections_to(gateway.hot)(
        config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
    )
    connection.connection_made(wire)
    return connection


async def answered(wire: Wire) -> bytes:
    """What was written, once it is a whole reply."""
    async with asyncio.timeout(10):
        while not wire.sent.endswith(b"}"):
            await asyncio.sleep(0)
    return wire.sent


@pytest.mark.anyio
@pytest.mark.parametrize("cut", [1, 30, 90, -5, -1])
async def test_a_request_in_two_pieces_is_answered_as_one(fake_folder: FakeFolder, cut: int) -> None:
    """Wherever it is cut, in its head or in its body; and the next one over that connection as ever."""
    wire = Wire()
    connection = connection_over(wire, fake_folder)
    whole = request(TEXT)
    for pieces in ((whole[:cut], whole[cut:]), (whole,)):
        wire.sent = b""
        for piece in pieces:
            assert wire.sent == b""
            connection.data_received(piece)
            await asyncio.sleep(0)
        assert (await answered(wire)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert wire.sent.count(b"HTTP/1.1") == 1
    connection.connection_lost(None)


@pytest.mark.anyio
@pytest.mark.parametrize("model", ["fake-small", "fake-large"])
@pytest.mark.parametrize("how", [None, ConnectionResetError()])
async def test_nothing_is_left_of_a_connection_that_is_gone(
    fake_folder: FakeFolder, model: str, how: Exception | None
) -> None:
    """Closed or reset, answered at once or later: it is freed without waiting for timers or the collector."""
    wire = Wire()
    connection = connection_over(wire, fake_folder)
    left = weakref.ref(connection)
    gc.disable()
    try:
        connection.data_received(request(json.dumps({"inputs": "a text", "model": model}).encode()))
        await answered(wire)
        await asyncio.sleep(0)
        connection.connection_lost(how)
        del connection
        assert left() is None
    finally:
        gc.enable()


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    """Fast ones, slow ones, those for other routes and bad ones in one write, each in its turn."""
    to_large = json.dumps({"inputs": "sport: story 1", "model": "fake-large"}).encode()
    sent = [
        request(TEXT),
        request(to_large),
        request(TEXT),
        b"GET /v2 HTTP/1.1\r\nhost: here\r\n\r\n",
        request(b"{"),
        request(to_large),
        request(TEXT),
    ]
    client.send(b"".join(sent))
    replies = [client.reply() for _ in sent]
    assert [status for status, _, _ in replies] == [200, 200, 200, 200, 400, 200, 200]
    assert json.loads(replies[1][2])["outputs"][0]["variant"] == "fake-large"
    assert json.loads(replies[3][2])["name"]
    assert json.loads(replies[5][2])["outputs"][0]["variant"] == "fake-large"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(TEXT, b"connection: close"), 200),
        (request(TEXT, version=b"1.0"), 200),
        (request(b"{", b"connection: close"), 400),
    ],
)
def test_a_client_that_wants_no_further_request_is_told_and_left(
    client: Client, sent: bytes, status: int
) -> None:
    """`Connection: close` and HTTP/1.0 end the connection after the reply."""
    client.send(sent)
    found, headers, _ = client.reply()
    assert (found, headers["connection"]) == (status, "close")
    assert client.is_closed()


def test_chunked_bodies_and_expectations_are_read(client: Client) -> None:
    """A body without a length in one read; and one that is sent once the gateway says so."""
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(TEXT), TEXT)
    client.send(request(chunked, b"transfer-encoding: chunked", length=-1))
    assert client.reply()[0] == 200
    client.send(request(b"", b"expect: 100-continue", length=len(TEXT)))
    assert client.read.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert client.read.readline() == b"\r\n"
    client.send(TEXT)
    assert client.reply()[0] == 200


def test_a_body_beyond_the_cap_is_refused_however_it_is_sent(client: Client) -> None:
    """413 by its length, by what came, and without harm to what follows."""
    large = json.dumps({"inputs": "x" * 5000}).encode()
    client.send(request(large))
    assert client.reply()[0] == 413
    client.send(
        request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large), b"transfer-encoding: chunked", length=-1)
    )
    assert client.reply()[0] == 413
    client.send(request(TEXT))
    assert client.reply()[0] == 200


class Endless:
    """A stage that answers nobody and knows who left."""

    variant = "fake-small"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.left = threading.Event()

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> None:
        """Never."""

    async def logits(self, *_: object) -> Logits:
        """Wait for ever."""
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError

    async def ready(self) -> bool:
        """Always."""
        return True


def test_a_client_that_leaves_stops_the_work_for_it(fake_folder: FakeFolder) -> None:
    """Its request is given up, in the data plane too."""
    stage = Endless()
    first = snapshot_of(fake_folder, two_stage_policy(), NoRecorder())
    snapshot = Snapshot(1, first.policy, first.compiled, first.family, {**first.stages, "fake-small": stage})
    limits = RequestLimits()
    dataplane = DataPlane(lambda: snapshot, limits, NoRecorder())
    with serving(Gateway(dataplane, limits, NoRecorder(), lambda: b"")) as url:
        leaving = Client(url)
        leaving.send(request(TEXT))
        assert stage.entered.wait(10)
        assert dataplane.in_flight == 1
        leaving.read.close()
        leaving.socket.close()
        assert stage.left.wait(10)
    assert dataplane.in_flight == 0
