"""Decisions through HAProxy and replicas on Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import openai
import pytest
from starlette.responses import JSONResponse

from serve.control.bootstrap import assign
from serve.local.launcher import Handle
from serve.ray.gateway_replica import GatewayReplica
from serve.settings.collect import CollectSettings
from serve.settings.gateway import Settings
from serve.settings.stages import FakeSettings, StageSettings
from serve.settings.upstream import UpstreamSettings
from serve.stages.call import Ask, Reply
from serve.stages.remote import RemoteStage
from serve.telemetry.metrics import Telemetry
from serve.types.recorder import Recorder
from tables.collected.store import CollectedStore
from tests.serve.http.decisions.odd import Odd
from tests.serve.http.decisions.parts import NEWS, ask, choice


@pytest.mark.ray
def test_the_sdk_asks_a_gateway_on_ray(gateway: Handle) -> None:
    """Some answers escalate over a handle; each tells who gave it."""
    seen = set()
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any") as client:
        for number in range(50):
            raw = client.decisions.with_raw_response.create(
                **ask(choice(*NEWS), text=f"sport: story {number}", model="cascade")
            )
            assert raw.parse().answers[0].choice in NEWS
            seen.add((raw.headers["x-sluice-variant"], raw.headers["x-sluice-escalated"]))
    assert seen == {("fake-small", "false"), ("fake-large", "true")}


@pytest.mark.anyio
async def test_a_replica_passes_on_as_its_settings_say(tmp_path: Path) -> None:
    """The upstream of the settings is asked, and its connections are closed once the replica has drained."""
    above = Settings(fake=FakeSettings(delay_ms=0.0), upstream=UpstreamSettings(url="http://127.0.0.1:9/v1"))
    replica = await asyncio.to_thread(
        GatewayReplica, "one", assign(above, tmp_path), _without_ray, Telemetry()
    )
    await replica.start()
    transport = httpx.ASGITransport(app=replica.gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        here = await client.post("/v1/decisions", json=ask(choice(*NEWS), model="fake-small"))
        there = await client.post("/v1/decisions", json=ask(choice("rain", "sun")))
    assert (here.status_code, there.status_code) == (200, 503)
    assert there.json()["error"]["message"] == "the upstream cannot be reached now"
    await replica.drain()


@pytest.mark.anyio
async def test_a_replica_that_stops_writes_what_it_has_before_the_last_answer_comes(
    tmp_path: Path, odd: tuple[Odd, str]
) -> None:
    """An upstream that takes longer than the gateway has to stop costs no rows of others."""
    app, url = odd
    app.reply = JSONResponse({"answers": [{"type": "choice", "choice": "rain"}]})
    settings = Settings(
        fake=FakeSettings(delay_ms=0.0),
        upstream=UpstreamSettings(url=url),
        collect=CollectSettings(folder=str(tmp_path / "kept"), part_s=3600),
        stop_timeout_s=0.5,
    )
    replica = await asyncio.to_thread(
        GatewayReplica, "one", assign(settings, tmp_path), _without_ray, Telemetry()
    )
    await replica.start()
    transport = httpx.ASGITransport(app=replica.gateway)
    body = ask(choice("rain", "sun"))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        assert (await client.post("/v1/decisions", json=body)).status_code == 200
        while app.came.acquire(blocking=False):
            pass
        app.answer.clear()
        try:
            slow = asyncio.create_task(client.post("/v1/decisions", json=body))
            assert await asyncio.to_thread(app.came.acquire, timeout=20)
            draining = asyncio.create_task(replica.drain())
            kept = CollectedStore.open(tmp_path / "kept")
            while not len(await asyncio.to_thread(kept.rows)):
                pass
            assert not draining.done()
            assert (await client.post("/v1/decisions", json=body)).status_code == 503
        finally:
            app.answer.set()
        assert (await slow).status_code == 200
        await draining


def _without_ray(deployment: str, variant: str, sha256: str, _: Recorder) -> RemoteStage:
    async def call(asks: list[Ask]) -> list[Reply]:
        raise AssertionError

    async def ping() -> bool:
        return False

    return RemoteStage(variant, call, ping, StageSettings())
