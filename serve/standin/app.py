"""The application of a stand-in: what is asked on each path, with its delay, its price and its failures."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contract.errors import BadRequest, EnvironmentProblem, RequestError
from serve.standin.answerer import Answerer
from serve.standin.chat import chat_reply, parse_chat
from serve.standin.decide import answer_decisions, parse_decisions
from serve.standin.settings import StandInSettings
from serve.standin.spending import Spending
from serve.wire.common import parse_object

CHAT = "/v1/chat/completions"
DECISIONS = "/v1/decisions"
Answering = Callable[[bytes], Awaitable[tuple[bytes | dict[str, Any], int, Mapping[str, int]]]]
"""From a body to the reply, the questions that it answers, and its usage."""


class Refused(Exception):
    """A status other than 200 is the answer."""

    def __init__(
        self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers


@dataclass
class StandIn:
    """A stand-in's model, settings and counts."""

    answerer: Answerer
    settings: StandInSettings
    spending: Spending = field(default_factory=Spending)

    def __post_init__(self) -> None:
        name = self.settings.api_key_env
        self._key = None if name is None else os.environ.get(name)
        if name is not None and not self._key:
            raise EnvironmentProblem(
                f"the environment variable {name} holds no key", hint=f"export {name}=..."
            )
        self._chance = random.Random(self.settings.seed)
        self._room = self.settings.requests_per_s or 0.0
        self._filled_at = time.monotonic()

    def admit(self, authorization: str | None) -> None:
        """Let a request in. Raises Refused without the key, beyond the rate, and for failures by lot."""
        shown = (authorization or "").removeprefix("Bearer ")
        if self._key is not None and not secrets.compare_digest(shown.encode(), self._key.encode()):
            raise Refused(401, "invalid_request_error", "no valid key")
        rate = self.settings.requests_per_s
        if rate is not None:
            now = time.monotonic()
            self._room = min(max(rate, 1.0), self._room + rate * (now - self._filled_at))
            self._filled_at = now
            if self._room < 1:
                self.spending.refused += 1
                after = {"retry-after": str(max(1, round((1 - self._room) / rate)))}
                raise Refused(429, "rate_limit_error", f"more than {rate:g} requests a second", after)
            self._room -= 1
        if self.settings.failing_share and self._chance.random() < self.settings.failing_share:
            self.spending.failed += 1
            raise Refused(500, "server_error", "told to fail")

    async def decide(self, body: bytes) -> tuple[bytes, int, Mapping[str, int]]:
        """Answer a decision request. Raises BadRequest."""
        asked = parse_decisions(body)
        reply, usage = await asyncio.to_thread(answer_decisions, self.answerer, asked)
        return reply, len(asked.questions), usage

    async def chat(self, body: bytes) -> tuple[dict[str, Any], int, Mapping[str, int]]:
        """Answer a chat request that asks a closed question. Raises BadRequest."""
        asked = parse_chat(parse_object(body))
        known = await asyncio.to_thread(self.answerer.probabilities, asked.text, asked.labels)
        chance = self._chance if asked.seed is None else random.Random(asked.seed)
        chosen = [_chosen(known, asked.temperature, chance) for _ in range(asked.n)]
        reply = chat_reply(
            asked,
            known,
            chosen,
            model=self.answerer.name,
            number=self.spending.requests + 1,
            at_s=int(time.time()),
        )
        return reply, 1, reply["usage"]


def _chosen(probabilities: list[float], temperature: float, chance: random.Random) -> int:
    if temperature == 0:
        return max(range(len(probabilities)), key=probabilities.__getitem__)
    weights = [p ** (1 / temperature) for p in probabilities]
    return chance.choices(range(len(weights)), weights)[0]


def make_app(standin: StandIn) -> Starlette:
    """Return the application.

    POST /v1/decisions, POST /v1/chat/completions, GET /v1/models, GET /spending, GET /health. Errors are of
    OpenAI's form.
    """

    def route(path: str, answer: Answering) -> Route:
        async def endpoint(request: Request) -> Response:
            due_at = time.monotonic() + standin.settings.delay_ms / 1000
            standin.admit(request.headers.get("authorization"))
            reply, questions, usage = await answer(await request.body())
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            standin.spending.book(
                questions,
                standin.settings.usd_per_1k,
                usage.get("prompt_tokens", 0),
                usage.get("completion_tokens", 0),
            )
            if isinstance(reply, bytes):
                return Response(reply, media_type="application/json")
            return JSONResponse(reply)

        return Route(path, endpoint, methods=["POST"])

    async def models(_: Request) -> Response:
        own = {"id": standin.answerer.name, "object": "model", "created": 0, "owned_by": "sluicegate"}
        return JSONResponse({"object": "list", "data": [own]})

    async def spending(_: Request) -> Response:
        return JSONResponse(standin.spending.dump())

    async def health(_: Request) -> Response:
        return JSONResponse({"live": True})

    return Starlette(
        routes=[
            route(DECISIONS, standin.decide),
            route(CHAT, standin.chat),
            Route("/v1/models", models),
            Route("/spending", spending),
            Route("/health", health),
        ],
        exception_handlers={
            Refused: _refused,
            BadRequest: _problem,
            HTTPException: _http_problem,
            ClientDisconnect: _left,
        },
    )


def _error(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    error = {"message": message, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers)


def _refused(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Refused)
    return _error(problem.status, problem.kind, problem.message, problem.headers)


def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestError)
    return _error(400, "invalid_request_error", problem.message)


def _http_problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    return _error(problem.status_code, "invalid_request_error", problem.detail)


def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
