"""Clients that send slowly, read slowly, send half, or sit there: others do not notice."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.chaos.load import Load, bodies
from tests.chaos.record import Case
from tests.chaos.scene import Scene

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

HEAD = b"POST /v2/models/cascade/infer HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
BODY = bodies("cascade", 1)[0]
LARGE = b'{"inputs": [' + b",".join(b'"sport: story %d"' % n for n in range(256)) + b'], "top_k": 5}'


def _connect(url: str) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((str(place.hostname), int(place.port or 80)), timeout=10)


@contextmanager
def idle(url: str) -> Iterator[None]:
    """A thousand connections that send nothing."""
    with ExitStack() as held:
        for _ in range(1000):
            held.callback(_connect(url).close)
        yield


@contextmanager
def _each(url: str, count: int, do: Callable[[socket.socket, threading.Event], None]) -> Iterator[None]:
    """Some connections that each do something until all is over."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), _connect(url) as connection:
                do(connection, over)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _drip(data: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def drip(connection: socket.socket, over: threading.Event) -> None:
        for n in range(len(data)):
            connection.sendall(data[n : n + 1])
            if over.wait(0.1):
                return

    return drip


@contextmanager
def slow_heads(url: str) -> Iterator[None]:
    """Fifty that send ten bytes of their head a second."""
    with _each(url, 50, _drip(HEAD)):
        yield


@contextmanager
def slow_bodies(url: str) -> Iterator[None]:
    """Fifty that send their head and then ten bytes of their body a second."""

    def send(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY))
        _drip(BODY)(connection, over)

    with _each(url, 50, send):
        yield


@contextmanager
def slow_readers(url: str) -> Iterator[None]:
    """Twenty that ask for large answers and read them a few bytes at a time."""

    def read(connection: socket.socket, over: threading.Event) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        head = HEAD.replace(b"/v2/models/cascade/infer", b"/v1/classify")
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE)
        connection.settimeout(0.2)
        while not over.wait(0.05):
            with contextlib.suppress(TimeoutError):
                if not connection.recv(64):
                    return

    with _each(url, 20, read):
        yield


@contextmanager
def halves(url: str) -> Iterator[None]:
    """Ten that send half a body and leave, again and again."""

    def leave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[: len(BODY) // 2])
        over.wait(0.02)

    with _each(url, 10, leave):
        yield


def test_all_of_them_at_once(scene: Scene) -> None:
    """While a thousand clients sit idle and others are slow or leave, every other request is answered."""
    with ExitStack() as all_at_once:
        for behave in (idle, slow_heads, slow_bodies, slow_readers, halves):
            all_at_once.enter_context(behave(scene.house.url))
        tally = scene.offer(Load(1.5))
    scene.record.add(Case("all the clients that misbehave, at once", tally))
    assert tally.answered == tally.sent


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("behave", "name"),
    [
        (idle, "a thousand idle connections"),
        (slow_heads, "fifty clients that send ten bytes of their head a second"),
        (slow_bodies, "fifty clients that send ten bytes of their body a second"),
        (slow_readers, "twenty clients that read slowly what they asked for"),
        (halves, "ten clients that send half a body and leave, again and again"),
    ],
)
def test_others_do_not_notice(
    scene: Scene, behave: Callable[[str], contextlib.AbstractContextManager[None]], name: str
) -> None:
    """While some clients misbehave every request of the others is answered."""
    began = time.monotonic()
    with behave(scene.house.url):
        tally = scene.offer(Load(8))
    assert time.monotonic() - began < 60
    scene.record.add(Case(name, tally))
    assert tally.answered == tally.sent
