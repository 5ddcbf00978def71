"""The admin interface: a small HTTP application on loopback, which `sluice policy` calls."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import field_validator
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contract.errors import InputError, NotReady, SluiceError
from contract.live import FamilyReference, Revision
from contract.records import parse_record
from serve.access.key_store import KeyStore
from serve.control.admin_keys import key_routes
from serve.control.admin_trials import trial_routes
from serve.control.family_push import FamilyPush
from serve.control.plane import ControlPlane, ReplicaState
from serve.control.trials import TrialControl
from serve.settings.record import Setting

MAX_BODY_BYTES = 4 * 1024 * 1024


class FamilyPushAsked(Setting):
    """Body of PUT /family: a folder on the gateway's machine (a cluster's head), and what goes with it."""

    path: str
    policy: dict[str, Any] | None = None
    new_labels: bool = False
    reason: str = "family push"

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not Path(value).is_absolute():
            raise ValueError("the path must be absolute: the gateway does not run in your folder")
        return value


def make_admin(
    control: ControlPlane,
    keys: KeyStore,
    describe: Callable[[], dict[str, Any]],
    families: FamilyPush | None = None,
    trials: TrialControl | None = None,
) -> Starlette:
    """Return the admin application.

    GET /policy, PUT /policy?reason=, PUT /family, GET /history, POST /rollback/N, GET /state, GET /health,
    and those of admin_keys and admin_trials. Errors are {"error": ...}. Who may ask is for the guard around
    it to say.

    Args:
        control: decides.
        keys: where the keys are.
        describe: what /state says beyond the replicas: slots, family, ports.
        families: puts families in force; None: this gateway takes none.
        trials: of candidates; None: this gateway has none.
    """

    async def tell() -> None:
        with contextlib.suppress(NotReady):
            await control.states()

    async def bring(folder: str) -> FamilyReference:
        return await _taken(families).bring(Path(folder))

    return Starlette(
        routes=[
            *_policy_routes(control),
            *_family_routes(families),
            *_state_routes(control, describe),
            *key_routes(keys, tell),
            *(trial_routes(trials, _json_body, bring) if trials is not None else ()),
        ],
        exception_handlers={
            InputError: _problem(400),
            SluiceError: _problem(503),
            HTTPException: _http_problem,
            OSError: _away,
            Exception: _unexpected,
        },
    )


def _policy_routes(control: ControlPlane) -> list[Route]:
    async def show(_: Request) -> Response:
        return JSONResponse((await asyncio.to_thread(control.current)).dump())

    async def push(request: Request) -> Response:
        raw = await _json_body(request)
        return _changed(*await control.push(raw, request.query_params.get("reason", "push")))

    async def history(_: Request) -> Response:
        return JSONResponse([_line(revision) for revision in await asyncio.to_thread(control.history)])

    async def rollback(request: Request) -> Response:
        return _changed(*await control.rollback(request.path_params["number"]))

    return [
        Route("/policy", show, methods=["GET"]),
        Route("/policy", push, methods=["PUT"]),
        Route("/history", history),
        Route("/rollback/{number:int}", rollback, methods=["POST"]),
    ]


def _family_routes(families: FamilyPush | None) -> list[Route]:
    async def push_family(request: Request) -> Response:
        taken = _taken(families)
        asked = parse_record(FamilyPushAsked, await _json_body(request), where="the body")
        pushed = await taken.push(
            Path(asked.path), asked.policy, new_labels=asked.new_labels, reason=asked.reason
        )
        return JSONResponse(
            {
                **_changes(pushed.revision, pushed.replicas),
                "placed": pushed.placed,
                "said": list(pushed.said),
            }
        )

    return [Route("/family", push_family, methods=["PUT"])]


def _state_routes(control: ControlPlane, describe: Callable[[], dict[str, Any]]) -> list[Route]:
    async def state(_: Request) -> Response:
        replicas = [dataclasses.asdict(replica) for replica in await control.states()]
        revision = await asyncio.to_thread(control.current)
        told = await asyncio.to_thread(describe)
        return JSONResponse({"revision": _line(revision), "replicas": replicas, **told})

    async def health(_: Request) -> Response:
        return JSONResponse({"live": True})

    return [Route("/state", state), Route("/health", health)]


def _taken(families: FamilyPush | None) -> FamilyPush:
    """Return what puts families in force here."""
    if families is None:
        raise HTTPException(404, "this gateway takes no families")
    return families


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


def _line(revision: Revision) -> dict[str, Any]:
    return {
        "number": revision.number,
        "created_at": revision.created_at,
        "reason": revision.reason,
        "policy_version": revision.policy.version,
        "status": revision.policy.status,
        "family": revision.family_name,
        "family_sha256": revision.family_sha256,
        "stages": [stage.variant for stage in revision.policy.stages],
        "trials": {kind: candidate.policy.version for kind, candidate in revision.trials()},
    }


def _changed(revision: Revision, replicas: list[ReplicaState]) -> Response:
    return JSONResponse(_changes(revision, replicas))


def _changes(revision: Revision, replicas: list[ReplicaState]) -> dict[str, Any]:
    return {"revision": revision.dump(), "replicas": [dataclasses.asdict(replica) for replica in replicas]}


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
