"""A model behind HTTP of known behaviour: a real server that speaks all three forms, and fails as told."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest
import uvicorn

from contract.probabilities import softmax
from contract.remote import RemoteModel
from runtime.fake import FakeEncoder, FakeModel, FakeRuntime

LABELS = ("business", "entertainment", "politics", "sport", "tech")


@dataclass(frozen=True)
class Fault:
    """What happens to one request in place of an answer; `hang` never answers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    hang: bool = False


@dataclass(frozen=True)
class Request:
    """What was asked."""

    path: str
    headers: Mapping[str, str]
    body: Any


class KnownModel:
    """Answers as a fake of settable accuracy does; an ASGI application.

    Attributes:
        faults: what happens to the next requests, first come, first served.
        asked: every request so far.
        delay_s: before every answer.
        most: requests that were inside at a time.
        key: that must come with every request, if any.
        tells: whether it says probabilities.
        usage: what it says of tokens, in place of its own.
    """

    def __init__(self, labels: Sequence[str] = LABELS, *, accuracy: float = 0.97, seed: int = 0) -> None:
        self.labels = tuple(labels)
        self._runtime = FakeRuntime(FakeModel(labels=self.labels, accuracy=accuracy, seed=seed))
        self.faults: deque[Fault] = deque()
        self.asked: list[Request] = []
        self.delay_s = 0.0
        self.inside = 0
        self.most = 0
        self.key: str | None = None
        self.tells = True
        self.usage: dict[str, Any] | None = None
        self.says: Callable[[str], str] = lambda label: label

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return what it says [N, C]."""
        return softmax(self._runtime.logits(FakeEncoder().encode(list(texts))))

    def labels_of(self, texts: Sequence[str]) -> list[int]:
        """Return what it answers [N]."""
        found: list[int] = self.probabilities(texts).argmax(axis=1).tolist()
        return found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if scope["method"] == "GET":
            await _reply(send, 200, {}, b"{}")
            return
        asked = Request(scope["path"], headers, json.loads(body))
        self.asked.append(asked)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            status, more, reply = await self._answer(asked)
        finally:
            self.inside -= 1
        await _reply(send, status, more, reply)

    async def _answer(self, asked: Request) -> tuple[int, Mapping[str, str], bytes]:
        if self.key is not None and asked.headers.get("authorization") != f"Bearer {self.key}":
            return 401, {}, b'{"error": {"message": "no such key"}}'
        fault = self.faults.popleft() if self.faults else None
        if fault is not None and not fault.hang:
            return fault.status, fault.headers, fault.body
        wait_s = math.inf if fault is not None else self.delay_s
        if wait_s:
            await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=min(wait_s, 30.0))
        form = {"/v1/decisions": self._decide, "/v1/chat/completions": self._chat}.get(
            asked.path, self._infer
        )
        return 200, {}, json.dumps(form(asked.body)).encode()

    def _decide(self, body: Any) -> dict[str, Any]:
        shares = self.probabilities([body["input"]])[0]
        answers = []
        for question in body["questions"]:
            told = [
                {"value": choice["value"], "probability": float(share)}
                for choice, share in zip(question["choices"], shares, strict=True)
            ]
            best = int(shares.argmax())
            answers.append(
                {"type": "choice", "name": question.get("name"), "choice": told[best]["value"]}
                | ({"confidence": float(shares[best]), "probabilities": told} if self.tells else {})
            )
        usage = {"input_tokens": 100, "output_tokens": 1} if self.usage is None else self.usage
        return {"answers": answers, "model": body["model"], "usage": usage}

    def _chat(self, body: Any) -> dict[str, Any]:
        shares = self.probabilities([body["messages"][-1]["content"]])[0]
        name = self.says(self.labels[int(shares.argmax())])
        content, logprobs = json.dumps({"label": name}), None
        if self.tells and body.get("logprobs"):
            own = {label: float(share) for label, share in zip(self.labels, shares, strict=True)}
            pieces = ['{"label": "', name, '"}']
            told = [[(pieces[0], 1.0)], list(own.items()), [(pieces[2], 1.0)]]
            logprobs = {
                "content": [
                    {
                        "token": piece,
                        "logprob": math.log(dict(others)[piece]),
                        "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in others],
                    }
                    for piece, others in zip(pieces, told, strict=True)
                ]
            }
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if "tools" in body:
            call = {"type": "function", "function": {"name": "answer", "arguments": content}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        usage = {"prompt_tokens": 120, "completion_tokens": 8} if self.usage is None else self.usage
        return {
            "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}],
            "usage": usage,
        }

    def _infer(self, body: Any) -> dict[str, Any]:
        texts = body["inputs"][0]["data"]
        shares = self.probabilities(texts)
        tensors = {
            "probabilities": ("FP32", list(shares.shape), shares.reshape(-1).tolist()),
            "label": ("BYTES", [len(texts)], [self.labels[i] for i in shares.argmax(axis=1)]),
            "confidence": ("FP32", [len(texts)], shares.max(axis=1).tolist()),
        }
        outputs = []
        for wanted in body["outputs"]:
            kind, shape, data = tensors[wanted["name"]]
            outputs.append({"name": wanted["name"], "datatype": kind, "shape": shape, "data": data})
        return {"model_name": "known", "outputs": outputs}


async def _reply(send: Any, status: int, headers: Mapping[str, str], body: bytes) -> None:
    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), *told],
        }
    )
    await send({"type": "http.response.body", "body": body})


@contextmanager
def known_model(model: KnownModel, port: int = 0) -> Iterator[str]:
    """Serve a model with uvicorn in a thread, and give its root address."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        config = uvicorn.Config(
            model, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


K = TypeVar("K", bound=KnownModel)


def shared(kind: type[K]) -> tuple[Any, Any, Any]:
    """Return fixtures for one served model of a kind: `serving`, the model as new for a test, and `url`."""

    @pytest.fixture(scope="module", name="serving")
    def serving() -> Iterator[tuple[K, str]]:
        """One server for all tests here."""
        model = kind()
        with known_model(model) as url:
            yield model, url

    @pytest.fixture
    def known(serving: tuple[K, str]) -> K:
        """The server's model, as new."""
        model, _ = serving
        model.__init__()  # type: ignore[misc] # as new
        return model

    @pytest.fixture
    def url(serving: tuple[K, str]) -> str:
        """The server's root address."""
        return serving[1]

    return serving, known, url


def asking(url: str, form: str = "decisions", **changes: Any) -> RemoteModel:
    """Return a record that asks a known model at its root address, free and with short waits."""
    told: dict[str, Any] = {
        "form": form,
        "url": url if form == "oip" else f"{url}/v1",
        "model": "known",
        "usd_per_call": 0.0,
        "timeout_s": 5.0,
    }
    return RemoteModel.model_validate(told | changes)
