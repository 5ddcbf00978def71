"""Servers whose behaviour is known exactly, to prove the measurement on.

Plain asyncio, one process, a hand-written HTTP/1.1 reader for what our own clients send. The answer to a
text is its first word, so that the right answers are known too; `/metrics` counts CPU and energy by fiat.
Run one with `python -m loadtest.reference --delay-ms 20`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from contract.metrics import CPU_SECONDS, ENERGY, REQUESTS


@dataclass(frozen=True)
class Behaviour:
    """What a reference server does.

    Attributes:
        delay_ms: every answer comes this long after its request, however many wait.
        service_ms: one worker answers one request at a time, in order, each taking this long (the D of
            M/D/1); 0: no queue.
        stall_at_s, stall_s: counted from the first request, no answer leaves in this window.
        error_every: every k-th request gets a 500; 0: none.
        hang_every: every k-th request is never answered; 0: none.
        api_key: refuse requests without this key.
        variant: what the answers say answered.
        cpu_seconds: CPU time that `/metrics` adds per answer.
        joules: energy that `/metrics` adds per answer.
        idle_watts: power that `/metrics` adds all the time.
        energy_step_s: `/metrics` counts this power in steps of this long; 0: at every reading.
        prefix: path before all others, as behind a proxy; what lacks it is not found.
        metrics: whether there is a `/metrics` at all.
    """

    delay_ms: float = 0.0
    service_ms: float = 0.0
    stall_at_s: float = 0.0
    stall_s: float = 0.0
    error_every: int = 0
    hang_every: int = 0
    api_key: str = ""
    variant: str = "reference"
    cpu_seconds: float = 0.0
    joules: float = 0.0
    idle_watts: float = 0.0
    energy_step_s: float = 0.0
    prefix: str = ""
    metrics: bool = True


@dataclass
class State:
    """What a server has seen: arrival and answer times in seconds of `time.perf_counter`."""

    behaviour: Behaviour
    arrived_at: list[float] = field(default_factory=list)
    due_at: list[float] = field(default_factory=list)
    started_at: float = field(default_factory=time.perf_counter)
    first_at: float | None = None
    free_at: float = 0.0
    answered: int = 0

    def due(self, now: float) -> float:
        """Return when the request that arrives now is answered."""
        b = self.behaviour
        if self.first_at is None:
            self.first_at = now
        at = now + b.delay_ms / 1000.0
        if b.service_ms:
            at = self.free_at = max(now, self.free_at) + b.service_ms / 1000.0
        if b.stall_s:
            begin = self.first_at + b.stall_at_s
            if begin <= at < begin + b.stall_s:
                at = begin + b.stall_s
        self.arrived_at.append(now)
        self.due_at.append(at)
        return at

    def metrics(self) -> str:
        """Return the page of `/metrics`."""
        b, n = self.behaviour, self.answered
        passed = time.perf_counter() - self.started_at
        counted = passed - passed % b.energy_step_s if b.energy_step_s else passed
        joules = n * b.joules + b.idle_watts * counted
        lines = [f'{REQUESTS.name}{{model="reference",variant="{b.variant}",outcome="ok"}} {n}']
        if b.cpu_seconds:
            lines.append(f'{CPU_SECONDS.name}{{variant="{b.variant}"}} {n * b.cpu_seconds}')
        if b.joules or b.idle_watts:
            lines.append(f'{ENERGY.name}{{provenance="user-constant"}} {joules}')
        return "".join(line + "\n" for line in lines)


class _Connection(asyncio.Protocol):
    def __init__(self, states: Mapping[str, State]) -> None:
        self.states = states
        self.buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            total = end + 4 + length
            if len(self.buffer) < total:
                return
            original, body = self.buffer[:end], self.buffer[end + 4 : total]
            self.buffer = self.buffer[total:]
            self.answer(original, body)

    def answer(self, head: bytes, body: bytes) -> None:
        method, path = head.split(b" ", 2)[:2]
        own = self.states[""].behaviour
        prefix = own.prefix.encode()
        if not path.startswith(prefix + b"/") or (path == prefix + b"/metrics" and not own.metrics):
            self.write(404, b'{"error": "no such path"}')
            return
        path = path[len(prefix) :]
        if method == b"GET":
            page = "".join(state.metrics() for state in self.states.values())
            self.write(200, page.encode() if path == b"/metrics" else b"{}")
            return
        state = self.states.get(_model(path, body), self.states[""])
        b = state.behaviour
        if b.api_key and f"authorization: bearer {b.api_key}".encode().lower() not in head.lower():
            self.write(401, b'{"error": "no valid key"}')
            return
        now = time.perf_counter()
        due = state.due(now)
        number = len(state.due_at)
        if b.hang_every and number % b.hang_every == 0:
            return
        failed = bool(b.error_every) and number % b.error_every == 0
        reply = b'{"error": "told to fail"}' if failed else _reply(path, body, b.variant)
        if due <= now:
            self.finish(state, 500 if failed else 200, reply)
        else:
            loop = asyncio.get_running_loop()
            loop.call_at(loop.time() + due - now, self.finish, state, 500 if failed else 200, reply)

    def finish(self, state: State, status: int, reply: bytes) -> None:
        state.answered += 1
        self.write(status, reply)

    def write(self, status: int, body: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (status, len(body), body)
            )


def _model(path: bytes, body: bytes) -> str:
    if path.startswith(b"/v2/models/"):
        return path.split(b"/")[3].decode("latin-1")
    return str(json.loads(body).get("model", ""))


def _reply(path: bytes, body: bytes, variant: str) -> bytes:
    value = json.loads(body)
    said: dict[str, Any]
    if path.startswith(b"/v2/"):
        word = value["inputs"][0]["data"][0].split(None, 1)[0]
        said = {
            "model_name": "reference",
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [1], "data": [word]},
                {"name": "confidence", "datatype": "FP32", "shape": [1], "data": [1.0]},
                {"name": "variant", "datatype": "BYTES", "shape": [1], "data": [variant]},
                {"name": "escalated", "datatype": "BOOL", "shape": [1], "data": [False]},
            ],
        }
    else:
        word = value["inputs"].split(None, 1)[0]
        output = {
            "label": word, "confidence": 1.0, "variant": variant, "escalated": False, "degraded": False,
        }  # fmt: skip
        said = {"outputs": [output], "model": value.get("model"), "policy_version": "reference"}
    return json.dumps(said).encode()


@dataclass(frozen=True)
class Reference:
    """A running reference server."""

    url: str
    states: Mapping[str, State]

    @property
    def state(self) -> State:
        """What the default model has seen."""
        return self.states[""]


@contextlib.contextmanager
def serving(
    behaviour: Behaviour | None = None,
    models: Mapping[str, Behaviour] | None = None,
    *,
    host: str = "127.0.0.1",
) -> Iterator[Reference]:
    """Run a reference server in a thread of this process, on a free port of a loopback address.

    Models named in `models` behave as given there, each with a queue of its own; all others as `behaviour`.
    """
    given = {"": behaviour or Behaviour(), **(models or {})}
    states = {name: State(one) for name, one in given.items()}
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Connection(states), host, 0))
    port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="reference-server", daemon=True)
    thread.start()
    try:
        yield Reference(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", states)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


async def _serve_for_ever(behaviour: Behaviour, port: int) -> None:
    states = {"": State(behaviour)}
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(states), "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
    await server.serve_forever()


def main() -> None:
    """Run a reference server until interrupted; its URL is the first line of output."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    for item in fields(Behaviour):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default)
    given = vars(parser.parse_args())
    port = given.pop("port")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_for_ever(Behaviour(**given), port))


if __name__ == "__main__":
    main()
