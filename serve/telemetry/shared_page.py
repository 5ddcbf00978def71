"""A page that is costly to draw, drawn once for all who ask for it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class SharedPage:
    """Draws a page in a thread of its own, one at a time.

    However many ask, no thread of the event loop's pool is held, on which keys and revisions are followed.

    Args:
        draw: blocks until it has the page.
    """

    def __init__(self, draw: Callable[[], bytes]) -> None:
        self._draw = draw
        self._thread = ThreadPoolExecutor(1, "page")
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None

    async def __call__(self) -> bytes:
        """Return a page whose drawing began after the call; who waits for the same one shares it."""
        if self._next is None:
            self._next = asyncio.create_task(self._drawn())
        return await asyncio.shield(self._next)

    async def _drawn(self) -> bytes:
        async with self._turn:
            self._next = None
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._draw)
