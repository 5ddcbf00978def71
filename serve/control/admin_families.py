"""The routes of the admin interface that list, load and unload families."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contract.records import parse_record
from serve.control.admin_line import FamilyAsked, JsonBody, changes, summary
from serve.control.family_line import FamilyLine
from serve.control.roster_control import RosterControl


class FamilyLoadAsked(FamilyAsked):
    """Body of POST /families and PUT /families/NAME."""

    reason: str = "family load"


def family_routes(roster: RosterControl, json_body: JsonBody) -> list[Route]:
    """Return GET and POST /families, GET /families/history, PUT and DELETE /families/NAME.

    Args:
        roster: decides.
        json_body: reads a body.
    """

    async def show(_: Request) -> Response:
        now, lines = await asyncio.to_thread(roster.current), roster.lines
        told = [await asyncio.to_thread(_describe, line) for line in lines.values()]
        return JSONResponse({"roster": now.number, "plain": now.plain, "families": told})

    async def history(_: Request) -> Response:
        return JSONResponse([found.dump() for found in await asyncio.to_thread(roster.history)])

    async def load(request: Request) -> Response:
        asked = parse_record(FamilyLoadAsked, await json_body(request), where="the body")
        name = request.path_params.get("name")
        loaded = await roster.load(Path(asked.path), name, asked.policy, asked.reason)
        return JSONResponse(
            {
                "served_as": loaded.name,
                **changes(loaded.revision, loaded.replicas),
                "placed": loaded.placed,
                "said": list(loaded.said),
            }
        )

    async def unload(request: Request) -> Response:
        reason = request.query_params.get("reason", "family unload")
        replicas = await roster.unload(request.path_params["name"], reason)
        return JSONResponse(
            {
                "served": list(roster.lines),
                "replicas": [dataclasses.asdict(replica) for replica in replicas],
            }
        )

    return [
        Route("/families", show, methods=["GET"]),
        Route("/families", load, methods=["POST"]),
        Route("/families/history", history, methods=["GET"]),
        Route("/families/{name}", load, methods=["PUT"]),
        Route("/families/{name}", unload, methods=["DELETE"]),
    ]


def _describe(line: FamilyLine) -> dict[str, Any]:
    return {**line.describe(), "revision": summary(line.plane.current())}
