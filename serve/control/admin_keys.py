"""The routes of the admin interface that make, list, rotate and revoke keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contract.errors import InputError
from contract.records import first_problem
from serve.access.key_store import KeyStore
from serve.access.keys import KeyLimits, Scope, made, shown
from serve.settings.record import Setting

MAX_BODY_BYTES = 4096
T = TypeVar("T", bound=Setting)


class NewKey(Setting):
    """Body of POST /keys."""

    name: str
    scopes: tuple[Scope, ...] = Field(default=("infer",), min_length=1)
    limits: KeyLimits = KeyLimits()


class Rotation(Setting):
    """Body of POST /keys/NAME/rotate."""

    overlap_s: float = Field(default=3600.0, ge=0, le=366 * 86_400, allow_inf_nan=False)


def key_routes(store: KeyStore, tell: Callable[[], Awaitable[Any]]) -> list[Route]:
    """Return GET /keys, POST /keys, POST /keys/NAME/rotate and DELETE /keys/NAME.

    Args:
        store: where the keys are.
        tell: has every replica look for newer keys.
    """

    async def listed(_: Request) -> Response:
        return JSONResponse(shown(await asyncio.to_thread(store.latest)))

    async def create(request: Request) -> Response:
        asked = await _body(request, NewKey)
        key, book = await asyncio.to_thread(store.create, asked.name, asked.scopes, asked.limits)
        await tell()
        return JSONResponse(made(key, book), 201)

    async def rotate(request: Request) -> Response:
        asked = await _body(request, Rotation)
        overlap = timedelta(seconds=asked.overlap_s)
        key, book = await asyncio.to_thread(store.rotate, request.path_params["name"], overlap)
        await tell()
        return JSONResponse(made(key, book), 201)

    async def revoke(request: Request) -> Response:
        book = await asyncio.to_thread(store.revoke, request.path_params["name"])
        await tell()
        return JSONResponse(shown(book))

    return [
        Route("/keys", listed, methods=["GET"]),
        Route("/keys", create, methods=["POST"]),
        Route("/keys/{name}/rotate", rotate, methods=["POST"]),
        Route("/keys/{name}", revoke, methods=["DELETE"]),
    ]


async def _body(request: Request, kind: type[T]) -> T:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"at most {MAX_BODY_BYTES} bytes")
    try:
        return kind.model_validate(json.loads(body))
    except ValidationError as problem:
        raise InputError(first_problem(problem)) from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
