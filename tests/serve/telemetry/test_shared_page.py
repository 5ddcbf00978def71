"""Pages that are costly to draw: shared, and never on the threads that keys and revisions are followed by."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import ray
from ray import serve as ray_serve

from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.ray.node_pages import NodePages, page_of_this_node
from serve.settings.limits import RequestLimits
from serve.telemetry.nodes import join_pages
from serve.telemetry.shared_page import SharedPage
from tests.serve.parts import FakeFolder, Kept, snapshot_of, two_stage_policy

pytestmark = pytest.mark.anyio
SCRAPES = 20


async def test_who_asks_meanwhile_shares_the_next_page() -> None:
    """One page is drawn at a time, and nobody gets one whose drawing began before they asked."""
    going, drawn = threading.Event(), 0

    def draw() -> bytes:
        nonlocal drawn
        drawn += 1
        assert going.wait(10)
        return b"%d" % drawn

    page = SharedPage(draw)
    first = asyncio.create_task(page())
    while drawn == 0:
        await asyncio.sleep(0)
    others = [asyncio.create_task(page()) for _ in range(SCRAPES)]
    leaving = asyncio.create_task(page())
    await asyncio.sleep(0)
    leaving.cancel()
    going.set()
    assert await first == b"1"
    assert await asyncio.gather(*others) == [b"2"] * SCRAPES


async def test_a_page_that_fails_fails_for_those_who_asked_for_it_alone() -> None:
    """The next one is drawn anew."""
    pages: Iterator[OSError | bytes] = iter([OSError("no disk"), b"1"])

    def draw() -> bytes:
        found = next(pages)
        if isinstance(found, OSError):
            raise found
        return found

    page = SharedPage(draw)
    with pytest.raises(OSError, match="no disk"):
        await page()
    assert await page() == b"1"


class Handle:
    """A deployment with one replica, in this process; answers are collected in threads, as Serve's are."""

    def __init__(self, replica: Callable[[], Awaitable[tuple[str, bytes]]]) -> None:
        self._replica = replica
        self._loop = asyncio.get_running_loop()

    def broadcast(self, method: str) -> Handle:
        """Ask the replica."""
        assert method == "page_of_this_node"
        return self

    def results(self, timeout_s: float, *, return_exceptions: bool) -> list[Any]:
        """Wait for its answer."""
        assert return_exceptions
        asked = asyncio.run_coroutine_threadsafe(_awaited(self._replica), self._loop)
        return [asked.result(timeout_s)]


async def _awaited(replica: Callable[[], Awaitable[tuple[str, bytes]]]) -> tuple[str, bytes]:
    return await replica()


class Here:
    """Where a replica is."""

    def get_node_id(self) -> str:
        """The node's name."""
        return "n0"


async def test_any_number_of_scrapes_on_a_cluster_leaves_the_threads_to_others(
    fake_folder: FakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every page asks all nodes, this one too, with a pool as small as the one of Ray's replicas."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(5))
    counts = SharedPage(lambda: b"# TYPE sluice_requests_total counter\nsluice_requests_total 1\n")
    handle = Handle(lambda: page_of_this_node(counts))
    monkeypatch.setattr(ray_serve, "get_deployment_handle", lambda *_, **__: handle)
    monkeypatch.setattr(ray, "get_runtime_context", Here)
    nodes = NodePages(("gateway", "control", "shelf"), "sluicegate")
    recorder, limits = Kept(), RequestLimits()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
    gateway = Gateway(
        DataPlane(lambda: snapshot, limits, recorder), limits, recorder, lambda: join_pages(nodes())
    )
    async with (
        asyncio.timeout(20),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway), base_url="http://gateway") as client,
    ):
        scrapes = [client.get(path) for path in ("/metrics", "/v2/models/stats") for _ in range(SCRAPES)]
        replies = await asyncio.gather(*scrapes)
        assert await asyncio.to_thread(lambda: "followed") == "followed"
    assert {reply.status_code for reply in replies} == {200}
    assert 'sluice_requests_total{node="n0"} 1.0' in replies[0].text
