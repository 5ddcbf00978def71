"""A client as docs/http.md asks for: it sends again what may be sent again, and counts what it was told."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException, IncompleteRead, RemoteDisconnected, parse_headers
from io import BytesIO
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.chaos.load import bodies

AGAIN = frozenset({429, 500, 503, 504})
GIVES_UP_S = 60.0
WHOLE_ANSWERS = 50


class TwoAnswersError(Exception):
    """More came on a connection than the answer to its only request."""


def ask(url: str, body: bytes, *, model: str = "cascade", timeout_s: float = 20.0) -> tuple[int, bytes, str]:
    """Send one request over a connection of its own, read to its end; return status, body and Retry-After.

    Raises:
        TwoAnswersError: something followed the answer.
    """
    place = urlsplit(url)
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((str(place.hostname), int(place.port or 80)), timeout_s) as connection:
        connection.sendall(head.encode() + body)
        came = BytesIO(b"".join(iter(lambda: connection.recv(65536), b"")))
    status = came.readline().split()
    if len(status) < 2:
        raise RemoteDisconnected("the connection was closed without an answer")
    headers = parse_headers(came)
    length = int(headers["Content-Length"])
    reply, more = came.read(length), came.read()
    if len(reply) < length:
        raise IncompleteRead(reply)
    if more:
        raise TwoAnswersError(f"{reply[:100]!r}, then {more[:100]!r}")
    return int(status[1]), reply, headers.get("Retry-After", "")


def is_whole(url: str, *, model: str = "cascade") -> bool:
    """Whether the gateway says that it is ready, and then answers fifty requests in a row."""
    place = urlsplit(url)
    try:
        connection = HTTPConnection(str(place.hostname), place.port, timeout=2)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status != 200:
                return False
        finally:
            connection.close()
        asked = bodies(model, WHOLE_ANSWERS)
        return all(ask(url, body, model=model, timeout_s=2)[0] == 200 for body in asked)
    except (OSError, HTTPException):
        return False


class PatientClients:
    """Ask steadily while something breaks, each request again until it is answered. A context manager.

    Attributes:
        asked: requests that were begun. answered: how many of them got their answer in the end.
        tries: by what each try came to.
        wrong: what was not as the protocol says.
    """

    def __init__(self, url: str, *, clients: int = 4, pause_s: float = 0.15, model: str = "cascade") -> None:
        self._url = url
        self._model = model
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._never = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]
        self.asked = 0
        self.answered = 0
        self.tries: Counter[str] = Counter()
        self.wrong: list[str] = []

    @property
    def unanswered(self) -> int:
        """Requests that have no answer."""
        return self.asked - self.answered

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int) -> None:
        luck = random.Random(seed)
        while not self._stop.wait(self._pause_s):
            with self._lock:
                number = self.asked
                self.asked += 1
            self._ask_until_answered(number, luck)

    def _ask_until_answered(self, number: int, luck: random.Random) -> None:
        name = f"patient-{number}"
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [f"tech: story {number}"]}
        body = json.dumps({"id": name, "inputs": [tensor]}).encode()
        until = time.monotonic() + GIVES_UP_S
        wait_s = 0.0
        while time.monotonic() < until:
            wait_s = min(2 * wait_s, 2.0) or 0.05
            try:
                status, reply, after = ask(self._url, body, model=self._model)
            except TwoAnswersError as problem:
                with self._lock:
                    self.wrong.append(f"{name} was answered twice: {problem}")
                return
            except (OSError, HTTPException):
                self._note("reset")
                self._never.wait(wait_s * luck.random())
                continue
            self._note(str(status))
            if status == 200:
                self._keep(name, reply)
                return
            if status not in AGAIN:
                with self._lock:
                    self.wrong.append(f"{status}: {reply[:200]!r}")
                return
            self._never.wait((float(after) if after else 0.0) * 0.5 + wait_s * luck.random())

    def _keep(self, name: str, reply: bytes) -> None:
        said = json.loads(reply).get("id")
        with self._lock:
            self.answered += 1
            if said != name:
                self.wrong.append(f"{name} was answered with {said}")

    def _note(self, what: str) -> None:
        with self._lock:
            self.tries[what] += 1
