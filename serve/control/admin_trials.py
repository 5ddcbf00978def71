"""The routes of the admin interface that begin, tell and end trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contract.live import FamilyReference
from contract.records import parse_record
from contract.trial import TrialKind
from serve.control.plane import Committed
from serve.control.trials import Ending, TrialAsked, TrialControl

JsonBody = Callable[[Request], Awaitable[Any]]
FindFamily = Callable[[str], Awaitable[FamilyReference]]


def trial_routes(trials: TrialControl, json_body: JsonBody, find_family: FindFamily) -> list[Route]:
    """Return GET /trials, PUT /trials/KIND, POST /trials/KIND/promote and POST /trials/KIND/withdraw.

    Args:
        trials: decides.
        json_body: reads a body.
        find_family: checks a folder with a family, and puts it where replicas find it.
    """

    async def standing(_: Request) -> Response:
        return JSONResponse(await trials.standing())

    async def begin(request: Request) -> Response:
        kind = _kind(request)
        asked = parse_record(TrialAsked, await json_body(request), where="the body")
        family = None if asked.family is None else await find_family(asked.family)
        return _committed(await trials.begin(kind, asked, family))

    async def end(request: Request) -> Response:
        ending = request.path_params["ending"]
        if ending not in ("promote", "withdraw"):
            raise HTTPException(404, "a trial is promoted or withdrawn")
        return _committed(await trials.end(_kind(request), cast(Ending, ending), "operator"))

    return [
        Route("/trials", standing, methods=["GET"]),
        Route("/trials/{kind}", begin, methods=["PUT"]),
        Route("/trials/{kind}/{ending}", end, methods=["POST"]),
    ]


def _kind(request: Request) -> TrialKind:
    kind = request.path_params["kind"]
    if kind not in ("canary", "shadow"):
        raise HTTPException(404, "there are the trials canary and shadow")
    return cast(TrialKind, kind)


def _committed(committed: Committed) -> Response:
    revision, replicas = committed
    return JSONResponse(
        {"revision": revision.dump(), "replicas": [dataclasses.asdict(replica) for replica in replicas]}
    )
