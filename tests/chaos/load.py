"""Load in which every request is told apart: the project's generator, one id a request, every reply checked.

A request carries its number as the `id` of the Open Inference Protocol, which the reply repeats, so that an
answer to another's question shows.
"""

from __future__ import annotations

import json
import tempfile
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from contract.metrics import REQUESTS
from loadtest.exchange import NO_ANSWER, TIMED_OUT, Order, Samples, Send
from loadtest.generator import Generator

RATE = 100.0
TIMEOUT_S = 20.0
_REFUSALS = frozenset({429, 500, 503, 504})
"""What docs/http.md lets a gateway with a broken part say of a good request."""


@dataclass(frozen=True)
class Load:
    """An even load.

    Attributes:
        rate: requests per second. deadline_ms, faulty: as in `bodies`.
    """

    seconds: float
    rate: float = RATE
    model: str = "cascade"
    deadline_ms: float | None = None
    faulty: tuple[str, int] | None = None


@dataclass(frozen=True)
class Harm:
    """What is done in the middle of a load, and when."""

    do: Callable[[], None]
    at_s: float = 2.0


NO_HARM = Harm(lambda: None)


@dataclass
class Tally:
    """What became of every request of a load.

    Attributes:
        sent: how many. answered: with 200. degraded: of these, with the cheap answer in place of the best.
        refused: by status. resets: connections refused, or closed without an answer. late: no answer in time.
        malformed: what was wrong with replies that were not as the protocol says, the first few.
        disturbed_s: from the fault to the end of the last request that got no answer, of those sent after it.
        slowest_s: the slowest answer.
        counted: the texts that the gateway itself has counted meanwhile, where it was asked.
    """

    sent: int = 0
    answered: int = 0
    degraded: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    resets: int = 0
    late: int = 0
    malformed: list[str] = field(default_factory=list)
    disturbed_s: float = 0.0
    slowest_s: float = 0.0
    counted: int | None = None

    @property
    def lost(self) -> int:
        """Requests that were not answered."""
        return self.sent - self.answered


def bodies(
    model: str, n: int, *, deadline_ms: float | None = None, faulty: tuple[str, int] | None = None
) -> list[bytes]:
    """Return requests that name themselves: text and id are their number.

    With `faulty`, a fault and a number k, every k-th text has that fault of a fake in it.
    """
    mark, each = faulty or ("", 0)
    marks = [f" [{mark}]" if each and i % each == each - 1 else "" for i in range(n)]
    texts = [f"sport: story {i}{marks[i]}" for i in range(n)]
    given: dict[str, Any] = {} if deadline_ms is None else {"parameters": {"timeout": deadline_ms * 1000}}
    return [
        json.dumps(
            {
                "id": f"{model}-{i}",
                "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}],
                **given,
            }
        ).encode()
        for i, text in enumerate(texts)
    ]


def counted_by(url: str) -> int:
    """Return how many texts the gateway says it has had, however they went."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return int(sum(s.value for f in families for s in f.samples if s.name == REQUESTS.name))


def offer(
    generator: Generator, url: str, load: Load, harm: Harm = NO_HARM, *, counted: bool = False
) -> Tally:
    """Offer a load, do harm in the middle of it, and count what came back.

    With `counted` the gateway's own count is looked at too, which holds where nobody else asks and no
    replica dies.
    """
    before = counted_by(url) if counted else 0
    doing = _Doing(harm)
    with tempfile.TemporaryDirectory(prefix="sluice-chaos-") as name:
        folder = Path(name)
        _order(url, load.model).write(folder)
        _sending(load).write(folder)
        for event in generator.run(folder, load.seconds + TIMEOUT_S + 30):
            doing.begin_by(event)
        doing.end()
        samples = Samples.read(folder)
    tally = count(samples, load.model, doing.began_s or 0.0)
    tally.counted = counted_by(url) - before if counted else None
    return tally


def _order(url: str, model: str) -> Order:
    place = urlsplit(url)
    return Order(
        host=str(place.hostname),
        port=int(place.port or 80),
        tls=False,
        head=f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {place.netloc}\r\n"
        "Content-Type: application/json\r\n",
        name=model,
        timeout_s=TIMEOUT_S,
        connections=1024,
        warmup=0,
        miss_ms=None,
        stop_after_misses=None,
    )


def _sending(load: Load) -> Send:
    n = int(load.rate * load.seconds)
    asked = bodies(load.model, n, deadline_ms=load.deadline_ms, faulty=load.faulty)
    return Send(np.arange(n) / load.rate, np.arange(n), tuple(asked))


class _Doing:
    """Harm, done by a thread of its own once the load is so far."""

    def __init__(self, harm: Harm) -> None:
        self.began_s: float | None = None
        self._harm = harm
        self._thread = threading.Thread(target=self._do, name="harm")
        self._trouble: Exception | None = None

    def begin_by(self, event: dict[str, Any]) -> None:
        """Begin when the generator tells that it is time."""
        if self.began_s is None and event["event"] == "progress" and event["passed_s"] >= self._harm.at_s:
            self.began_s = event["passed_s"]
            self._thread.start()

    def end(self) -> None:
        """Wait for the end of it, and raise what it raised."""
        if self.began_s is not None:
            self._thread.join()
        if self._trouble is not None:
            raise self._trouble

    def _do(self) -> None:
        try:
            self._harm.do()
        except Exception as problem:  # noqa: BLE001  # raised where it is seen
            self._trouble = problem


def count(samples: Samples, model: str, fault_at_s: float) -> Tally:
    """Count the fate of every request, and check every reply against what it answers."""
    tally = Tally(sent=len(samples.status))
    for i, (status, reply) in enumerate(zip(samples.status.tolist(), samples.replies, strict=True)):
        took = float(samples.done[i] - samples.intended[i])
        if status == 200:
            tally.answered += 1
            tally.slowest_s = max(tally.slowest_s, took)
            wrong, degraded = _answer(reply, f"{model}-{i}")
            tally.degraded += degraded
            if wrong:
                tally.malformed.append(f"request {i}: {wrong}")
            continue
        tally.disturbed_s = max(tally.disturbed_s, float(samples.done[i]) - fault_at_s)
        if status == NO_ANSWER:
            tally.resets += 1
        elif status == TIMED_OUT:
            tally.late += 1
        else:
            tally.refused[status] += 1
            if wrong := _refusal(status, reply):
                tally.malformed.append(f"request {i}: {wrong}")
    return tally


def _answer(reply: bytes, name: str) -> tuple[str, bool]:
    """Return what is wrong with an answer, empty for nothing, and whether it is a degraded one."""
    try:
        value = json.loads(reply)
        outputs = {output["name"]: output for output in value["outputs"]}
        if value["id"] != name:
            return f"the answer to {value['id']} came for {name}", False
        [label], [confidence] = outputs["label"]["data"], outputs["confidence"]["data"]
        if not isinstance(label, str) or not 0 <= confidence <= 1:
            return f"no label with a confidence: {reply[:200]!r}", False
        return "", bool(outputs["degraded"]["data"][0])
    except (ValueError, LookupError, TypeError) as problem:
        return f"{type(problem).__name__}: {reply[:200]!r}", False


def _refusal(status: int, reply: bytes) -> str:
    """Return what is wrong with a refusal, empty for nothing."""
    if status not in _REFUSALS:
        return f"status {status}: {reply[:200]!r}"
    try:
        value = json.loads(reply)
    except ValueError:
        return f"status {status} without JSON: {reply[:200]!r}"
    if not isinstance(value, dict) or not isinstance(value.get("error"), str):
        return f"status {status} without an error: {reply[:200]!r}"
    return ""
