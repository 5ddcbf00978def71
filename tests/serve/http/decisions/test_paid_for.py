"""What the upstream is paid for is the key's, whatever comes of it; what it is not paid for is nobody's."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.responses import JSONResponse, Response

from contract.errors import Overloaded
from runtime.api import Logits
from runtime.load import load_variant
from serve.access.key_store import open_keys
from serve.access.keys import KeyLimits
from serve.access.meter import Meter
from serve.settings.stages import BatchRules
from serve.stages.inline import InlineStage
from serve.types.stage import Snapshots
from tests.serve.http.decisions.odd import Odd
from tests.serve.http.decisions.parts import NEWS, POST, Deciding, ask, choice, deciding
from tests.serve.parts import FakeFolder, Kept, snapshot_of, two_stage_policy

USD = 0.03
USABLE = JSONResponse({"answers": [{"type": "refusal"}]})


@contextmanager
def metered(
    folder: Path, fakes: FakeFolder | Snapshots, url: str, **more: Any
) -> Iterator[tuple[Deciding, str, Meter]]:
    """A gateway with a key whose day is limited, and what that key has used."""
    with deciding(fakes, upstream={"url": url, "usd_per_1k": 1000 * USD} | more) as running:
        limits = KeyLimits(usd_per_day=1000.0, requests_per_day=100_000)
        key, book = open_keys(str(folder)).create("shop", ("infer",), limits)
        running.gate.take(book)
        assert running.gate.accounts is not None
        meter = running.gate.accounts.meter("shop")
        assert meter is not None
        yield running, key, meter


def used(meter: Meter) -> Any:
    """USD and requests of the day."""
    return meter.usd, meter.requests


def decide(running: Deciding, key: str, body: dict[str, Any]) -> httpx.Response:
    """Ask with the key."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{running.url}/v1/decisions", json=body, headers=headers)


def test_whoever_does_not_wait_pays_all_the_same(
    fake_folder: FakeFolder, odd: tuple[Odd, str], tmp_path: Path
) -> None:
    """A deadline of the client's, and a client that hangs up: the upstream has the question by then."""
    app, url = odd
    app.reply = USABLE
    app.answer.clear()
    with metered(tmp_path, fake_folder, url) as (running, key, meter):
        try:
            late = decide(running, key, ask(choice(*POST), deadline_ms=1000))
            assert late.status_code == 504
            assert used(meter) == (pytest.approx(USD), 1)
            while app.came.acquire(blocking=False):
                pass
            body = json.dumps(ask(choice(*POST))).encode()
            head = f"POST /v1/decisions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
            with socket.create_connection(("127.0.0.1", httpx.URL(running.url).port or 0)) as client:
                client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
                assert app.came.acquire(timeout=20)
        finally:
            app.answer.set()
        for _ in range(2000):
            if len(running.recorder.spendings) == 2:
                break
            threading.Event().wait(0.005)
        assert used(meter) == (pytest.approx(2 * USD), 2)
        assert running.recorder.answers == []


@pytest.mark.parametrize(
    ("reply", "setting", "status", "paid"),
    [
        (JSONResponse({"answers": ["x" * 200]}), {"max_reply_bytes": 100}, 500, True),
        (JSONResponse({"error": {}}, 401), {"key_env": "UPSTREAM_KEY"}, 500, False),
        (Response(status_code=302, headers={"location": "http://127.0.0.1:1/"}), {}, 500, False),
        (JSONResponse({"error": {}}, 429), {}, 429, False),
    ],
)
def test_replies_that_are_no_answers_cost_what_they_cost(
    fake_folder: FakeFolder,
    odd: tuple[Odd, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reply: Response,
    setting: dict[str, Any],
    status: int,
    paid: bool,
) -> None:
    """A reply too large was paid for, a refusal was not; neither is an answer, nor asked for again."""
    monkeypatch.setenv("UPSTREAM_KEY", "ours")
    app, url = odd
    app.reply = reply
    with metered(tmp_path, fake_folder, url, **setting) as (running, key, meter):
        got = decide(running, key, ask(choice(*POST)))
        assert got.status_code == status
        assert got.headers.get("x-should-retry") == ("false" if status == 500 else None)
        assert used(meter) == (pytest.approx(USD * paid), paid)
        assert len(running.recorder.spendings) == paid
        assert running.recorder.answers == []


def test_what_never_went_out_costs_nothing_and_is_given_back_at_once(
    fake_folder: FakeFolder, tmp_path: Path
) -> None:
    """The key's part of the day is there again with the reply, before any garbage is collected."""
    gc.collect()
    gc.disable()
    try:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
            with metered(tmp_path, fake_folder, nobody, connect_s=0.5) as (running, key, meter):
                assert decide(running, key, ask(choice(*POST))).status_code == 503
                assert (meter.usd, meter.requests, meter._reserved) == (0, 0, 0)
                assert running.recorder.spendings == []
    finally:
        gc.enable()


@pytest.mark.parametrize("answers", [[], [{"deep": 300}]])
def test_a_part_that_is_not_answered_is_paid_for_once(
    fake_folder: FakeFolder, odd: tuple[Odd, str], tmp_path: Path, answers: list[Any]
) -> None:
    """Where the upstream answers something else than it was asked, the SDK does not ask again."""
    app, url = odd
    body = b'{"answers": []}'
    if answers:
        body = b'{"answers": [{"deep": ' + b"[" * 300 + b"]" * 300 + b"}]}"
    app.reply = Response(body, media_type="application/json")
    before = len(app.seen)
    with metered(tmp_path, fake_folder, url) as (running, key, meter):
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=2)
        with client, pytest.raises(openai.InternalServerError, match="no usable answer"):
            client.decisions.create(**ask(choice(*POST), choice(*NEWS)))
        assert len(app.seen) == before + 1
        assert used(meter) == (pytest.approx(USD), 2)
        assert running.recorder.refusals == [("upstream", "server_error", 1)]
        assert [record.model for record in running.recorder.answers] == ["cascade"]


def test_a_request_that_fails_elsewhere_is_paid_for_too(
    fake_folder: FakeFolder, odd: tuple[Odd, str], tmp_path: Path
) -> None:
    """The upstream has its part by the time that a model here refuses."""
    app, url = odd
    app.reply = USABLE
    app.answer.clear()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), Kept())
    full = Full(load_variant(fake_folder.folder, fake_folder.family, "fake-small"), BatchRules(), Kept())
    full.came = app.came
    snapshot = replace(snapshot, stages={**snapshot.stages, "fake-small": full})
    while app.came.acquire(blocking=False):
        pass
    with metered(tmp_path, lambda: snapshot, url) as (running, key, meter):
        try:
            reply = decide(running, key, ask(choice(*POST), choice(*NEWS)))
            assert (reply.status_code, reply.json()["error"]["message"]) == (429, "full")
        finally:
            app.answer.set()
        assert used(meter) == (pytest.approx(USD), 2)


class Full(InlineStage):
    """A stage without room, which says so once the upstream has been asked."""

    came: threading.Semaphore

    def logits_now(self, *_: Any, **__: Any) -> None:
        """Answer nothing at once."""

    async def logits(self, *_: Any, **__: Any) -> Logits:
        """Refuse."""
        assert await asyncio.to_thread(self.came.acquire, timeout=20)
        raise Overloaded("full")


def test_a_limit_in_usd_that_counts_nothing_is_said(
    fake_folder: FakeFolder, odd: tuple[Odd, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, where the upstream has no price."""
    app, url = odd
    app.reply = USABLE
    with metered(tmp_path, fake_folder, url, usd_per_1k=None) as (running, key, _):
        for _ in range(2):
            assert decide(running, key, ask(choice(*POST))).status_code == 200
    assert [one.message for one in caplog.records if "usd_per_1k" in one.message] != []
    assert sum("usd_per_1k" in one.message for one in caplog.records) == 1
