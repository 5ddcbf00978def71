"""The admin interface: a small HTTP application on loopback, which `sluice policy` calls."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contract.errors import InputError, NotReady, SluiceError
from contract.live import Revision
from contract.records import parse_record
from serve.access.key_store import KeyStore
from serve.control.admin_families import family_routes
from serve.control.admin_keys import key_routes
from serve.control.admin_line import FamilyAsked, Line, LineOf, changes, summary
from serve.control.admin_trials import trial_routes
from serve.control.plane import ReplicaState
from serve.control.roster_control import RosterControl

MAX_BODY_BYTES = 4 * 1024 * 1024


class FamilyPushAsked(FamilyAsked):
    """Body of PUT /family."""

    new_labels: bool = False
    reason: str = "family push"


def make_admin(
    line_of: LineOf,
    keys: KeyStore,
    describe: Callable[[], dict[str, Any]],
    tell: Callable[[], Awaitable[object]],
    roster: RosterControl | None = None,
) -> Starlette:
    """Return the admin application.

    GET /policy, PUT /policy?reason=, PUT /family, GET /history, POST /rollback/N, POST /gear/NAME,
    GET /state, GET /health, and those of admin_families, admin_keys and admin_trials. `?family=NAME` says
    which family is meant, where several are served. Errors are {"error": ...}. Who may ask is for the guard
    around it to say.

    Args:
        line_of: finds who decides.
        keys: where the keys are.
        describe: what /state says beyond replicas and family: slots, ports.
        tell: has the replicas follow what was changed beside the revisions.
        roster: loads and unloads families; None: this gateway keeps those that it has.
    """

    def of(request: Request) -> Line:
        return line_of(request.query_params.get("family"))

    async def tell_all() -> None:
        with contextlib.suppress(NotReady):
            await tell()

    return Starlette(
        routes=[
            *_policy_routes(of),
            *_state_routes(of, describe),
            *key_routes(keys, tell_all),
            *trial_routes(of, _json_body),
            *(family_routes(roster, _json_body) if roster is not None else ()),
        ],
        exception_handlers={
            InputError: _problem(400),
            SluiceError: _problem(503),
            HTTPException: _http_problem,
            OSError: _away,
            Exception: _unexpected,
        },
    )


def _policy_routes(of: Callable[[Request], Line]) -> list[Route]:
    async def show(request: Request) -> Response:
        return JSONResponse((await asyncio.to_thread(of(request).plane.current)).dump())

    async def push(request: Request) -> Response:
        line, raw = of(request), await _json_body(request)
        return _changed(*await line.plane.push(raw, request.query_params.get("reason", "push")))

    async def push_family(request: Request) -> Response:
        line = of(request)
        asked = parse_record(FamilyPushAsked, await _json_body(request), where="the body")
        pushed = await line.push.push(
            Path(asked.path), asked.policy, new_labels=asked.new_labels, reason=asked.reason
        )
        return JSONResponse(
            {
                **changes(pushed.revision, pushed.replicas),
                "placed": pushed.placed,
                "said": list(pushed.said),
            }
        )

    async def history(request: Request) -> Response:
        revisions = await asyncio.to_thread(of(request).plane.history)
        return JSONResponse([summary(revision) for revision in revisions])

    async def rollback(request: Request) -> Response:
        return _changed(*await of(request).plane.rollback(request.path_params["number"]))

    async def shift(request: Request) -> Response:
        name = request.path_params["name"]
        return _changed(*await of(request).plane.shift(None if name == "auto" else name))

    return [
        Route("/policy", show, methods=["GET"]),
        Route("/policy", push, methods=["PUT"]),
        Route("/family", push_family, methods=["PUT"]),
        Route("/history", history),
        Route("/rollback/{number:int}", rollback, methods=["POST"]),
        Route("/gear/{name}", shift, methods=["POST"]),
    ]


def _state_routes(of: Callable[[Request], Line], describe: Callable[[], dict[str, Any]]) -> list[Route]:
    async def state(request: Request) -> Response:
        line = of(request)
        replicas = [dataclasses.asdict(replica) for replica in await line.plane.states()]
        revision = await asyncio.to_thread(line.plane.current)
        told = {**await asyncio.to_thread(describe), **await asyncio.to_thread(line.describe)}
        return JSONResponse({"revision": summary(revision), "replicas": replicas, **told})

    async def health(_: Request) -> Response:
        return JSONResponse({"live": True})

    return [Route("/state", state), Route("/health", health)]


async def _json_body(request: Request) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send the policy as application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"a policy has at most {MAX_BODY_BYTES} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None


def _changed(revision: Revision, replicas: list[ReplicaState]) -> Response:
    return JSONResponse(changes(revision, replicas))


def _problem(status: int) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, problem: Exception) -> Response:
        return JSONResponse({"error": str(problem)}, status)

    return answer


def _away(_: Request, problem: Exception) -> Response:
    return JSONResponse({"error": f"the state cannot be reached: {problem}"}, 503)


def _http_problem(_: Request, problem: Exception) -> Response:
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    text = problem.detail if isinstance(problem, HTTPException) else "internal error"
    return JSONResponse({"error": text}, status)


def _unexpected(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "internal error"}, 500)
