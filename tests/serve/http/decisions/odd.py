"""An upstream of the tests that answers what it is told to, when it is told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.serve.parts import serving


class Odd:
    """An upstream that notes what it is shown, and answers what it is told to."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.reply: Response = JSONResponse({"answers": []})
        self.came = threading.Semaphore(0)
        self.answer = threading.Event()
        self.answer.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        await request.body()
        self.seen.append(dict(request.headers))
        self.came.release()
        await asyncio.to_thread(self.answer.wait)
        await self.reply(scope, receive, send)


@pytest.fixture(scope="module")
def odd() -> Iterator[tuple[Odd, str]]:
    """It, and where it is."""
    app = Odd()
    with serving(app) as url:
        yield app, f"{url}/v1"
