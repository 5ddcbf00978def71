"""Steady traffic to several front doors, each request accounted for."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Self

from tests.cluster.network import Machine

_PAUSE_S = 0.05
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Sent:
    """One request: to whom, when it was sent and done, and what came: a status, `reset` or `late`."""

    to: str
    sent_at: float
    done_at: float
    came: str


class Traffic:
    """One client per address, each with a connection that it keeps. A context manager.

    Args:
        client: the machine that asks.
        addresses: of the front doors.
        port: of all of them.
    """

    def __init__(self, client: Machine, addresses: list[str], port: int) -> None:
        self._client = client
        self._port = port
        self._stop = threading.Event()
        self._sent: list[Sent] = []
        self._threads = [threading.Thread(target=self._ask, args=(each,)) for each in addresses]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def answered(self, since: float, to: str | None = None) -> int:
        """Return how many requests sent since then were answered."""
        return sum(
            one.came == "200" and one.sent_at >= since and to in (None, one.to) for one in tuple(self._sent)
        )

    def counts(self, *, to: str | None = None, since: float = 0.0) -> Counter[str]:
        """Return what came of the requests, by what it was."""
        return Counter(one.came for one in self._sent if one.sent_at >= since and to in (None, one.to))

    def disturbed_s(self, since: float, addresses: list[str]) -> float:
        """Return the time from a fault to the end of the last request to these that got no answer."""
        failed = [one.done_at for one in self._sent if one.to in addresses and one.came != "200"]
        return max((at - since for at in failed if at > since), default=0.0)

    def _ask(self, address: str) -> None:
        with self._client.entered():
            connection = HTTPConnection(address, self._port, timeout=_TIMEOUT_S)
            body = json.dumps({"inputs": "a text of the traffic"})
            while not self._stop.wait(_PAUSE_S):
                sent_at = time.monotonic()
                try:
                    connection.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})
                    reply = connection.getresponse()
                    reply.read()
                    came = str(reply.status)
                except TimeoutError:
                    came = "late"
                    connection.close()
                except (OSError, HTTPException):
                    came = "reset"
                    connection.close()
                self._sent.append(Sent(address, sent_at, time.monotonic(), came))
            connection.close()
