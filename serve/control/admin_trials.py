"""The routes of the admin interface that begin, tell and end trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contract.records import parse_record
from contract.trial import TrialKind
from serve.control.admin_line import JsonBody, Line, changes
from serve.control.plane import Committed
from serve.control.trials import Ending, TrialAsked


def trial_routes(line_of: Callable[[Request], Line], json_body: JsonBody) -> list[Route]:
    """Return GET /trials, PUT /trials/KIND, POST /trials/KIND/promote and POST /trials/KIND/withdraw.

    Args:
        line_of: finds who decides.
        json_body: reads a body.
    """

    async def standing(request: Request) -> Response:
        return JSONResponse(await line_of(request).trials.standing())

    async def begin(request: Request) -> Response:
        kind, line = _kind(request), line_of(request)
        asked = parse_record(TrialAsked, await json_body(request), where="the body")
        family = None if asked.family is None else await line.push.bring(Path(asked.family))
        return _committed(await line.trials.begin(kind, asked, family))

    async def end(request: Request) -> Response:
        ending = request.path_params["ending"]
        if ending not in ("promote", "withdraw"):
            raise HTTPException(404, "a trial is promoted or withdrawn")
        return _committed(await line_of(request).trials.end(_kind(request), cast(Ending, ending), "operator"))

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
    return JSONResponse(changes(revision, replicas))
