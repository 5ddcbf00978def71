"""Who answers where there is an upstream too, and who does while a gateway starts, stops or falls behind."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse

from contract.errors import NotReady
from runtime.load import load_variant
from serve.dataplane.family_planes import FamilyPlanes
from serve.dataplane.plane import DataPlane
from serve.http.decisions import routes
from serve.settings.limits import RequestLimits
from serve.settings.stages import BatchRules
from serve.settings.upstream import UpstreamSettings
from serve.stages.inline import InlineStage
from serve.types.stage import Snapshot
from serve.upstream.client import Sent, Upstream
from serve.wire.common import Reply
from serve.wire.decisions.errors import NoUsableAnswer
from tests.serve.http.decisions.odd import Odd
from tests.serve.http.decisions.parts import NEWS, POST, Deciding, ask, certified, choice, decide, deciding
from tests.serve.parts import FakeFolder, Kept, snapshot_of, two_stage_policy


def test_what_may_be_another_question_goes_to_who_reads_it(fake_folder: FakeFolder, above: Deciding) -> None:
    """A part of a family's labels may be the labels of something else; all of them, or a name, are not."""
    with deciding(fake_folder, upstream={"url": f"{above.url}/v1"}) as running:
        part = decide(running, ask(choice(*NEWS[:2])))
        assert part.json()["error"]["code"] == "question_not_served"
        assert part.headers["x-sluice-variant"] == "upstream"
        assert decide(running, ask(choice(*NEWS[:2]), model="cascade")).status_code == 200
        [told] = decide(running, ask(choice(*NEWS))).json()["sluice"]["answers"]
        assert told["model"] == "cascade"


class Put(InlineStage):
    """The large model, asked a question that is known."""

    instructions = "Which topic is it?"


def having_learnt(fakes: FakeFolder) -> Snapshot:
    """A certified cascade whose reference is asked that question; for one event loop."""
    snapshot = snapshot_of(fakes, certified(), Kept())
    reference = Put(load_variant(fakes.folder, fakes.family, "fake-large"), BatchRules(), Kept())
    return replace(snapshot, stages={**snapshot.stages, "fake-large": reference})


def test_a_family_that_learnt_one_question_answers_no_other(
    fake_folder: FakeFolder, odd: tuple[Odd, str]
) -> None:
    """With an upstream, on the same labels: in those words alone."""
    app, url = odd
    app.reply = JSONResponse({"answers": [{"type": "refusal"}]})
    one, two = having_learnt(fake_folder), having_learnt(fake_folder)
    learnt, other = choice(*NEWS), choice(*NEWS)
    learnt["instructions"] = [{"type": "input_text", "text": "Which topic is it?"}]
    other["instructions"] = "Which topic does the author dislike?"
    with deciding(lambda: one, upstream={"url": url}) as running:
        for _ in range(2):
            assert decide(running, ask(learnt)).json()["sluice"]["answers"][0]["model"] == "cascade"
            assert decide(running, ask(other)).headers["x-sluice-variant"] == "upstream"
        assert decide(running, ask(other, model="cascade")).headers["x-sluice-variant"] != "upstream"
    with deciding(lambda: two) as running:
        for question, sure in ((learnt, True), (other, False)):
            assert decide(running, ask(question)).json()["sluice"]["answers"][0]["certified"] is sure


@pytest.mark.parametrize("status", [199, 600, 999])
@pytest.mark.anyio
async def test_a_status_that_there_is_not_is_no_reply(status: int) -> None:
    """Nobody could write its first line."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json={}))
    upstream = Upstream(UpstreamSettings(url="http://127.0.0.1:9/v1"), transport=transport)
    with pytest.raises(NoUsableAnswer):
        await upstream.ask(Sent("/decisions", b"{}", (), b"r", None, False))
    await upstream.close()
    with pytest.raises(NotReady, match="stopping"):
        await upstream.ask(Sent("/decisions", b"{}", (), b"r", None, False))


def test_json_nested_too_deeply_goes_on_as_it_came_or_is_refused(
    fake_folder: FakeFolder, odd: tuple[Odd, str]
) -> None:
    """It can be read, and not be written again."""
    app, url = odd
    app.reply = JSONResponse({"answers": [{"type": "refusal"}]})
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    told: dict[str, Any] = {"model": "m", "state": deep, "questions": {"q": {"type": "noul"}}}
    part = {"role": "user", "content": [{"type": "input_json", "data": deep}]}
    with deciding(fake_folder) as running:
        state = decide(running, told, "/v1/systemone")
        data = decide(running, ask(choice(*NEWS), text=[part]))
    for reply in (state, data):
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "input_not_read")
    with deciding(fake_folder, upstream={"url": url}) as running:
        assert decide(running, told, "/v1/systemone").status_code == 200
        split = decide(running, ask(choice(*POST), deadline_ms=5000, strange=deep))
        assert (split.status_code, split.json()["error"]["param"]) == (400, "strange")


@pytest.mark.anyio
async def test_a_gateway_that_stops_passes_nothing_on(fake_folder: FakeFolder, above: Deciding) -> None:
    """503, so that the client asks another replica: with a family or without."""
    limits, kept = RequestLimits(), Kept()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), kept)
    several: list[dict[str, DataPlane]] = [
        {},
        {"news": DataPlane(lambda: snapshot, limits, kept, name="news")},
    ]
    for families in several:
        planes = FamilyPlanes()
        planes.serve(families)
        with deciding(planes, upstream={"url": f"{above.url}/v1"}) as running:
            await planes.drain()
            reply = await asyncio.to_thread(decide, running, ask(choice(*POST)))
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


def test_a_family_that_is_not_ready_here_is_no_reason_to_refuse_for_good(
    fake_folder: FakeFolder, post_folder: FakeFolder
) -> None:
    """503 for what it might answer; what the others answer they do, and what nobody ever answers is a 400."""
    limits, kept = RequestLimits(), Kept()
    snapshot = snapshot_of(fake_folder, two_stage_policy(), kept)

    def behind() -> Snapshot:
        raise NotReady("fell behind")

    planes = FamilyPlanes()
    planes.serve({
        "news": DataPlane(lambda: snapshot, limits, kept, name="news"),
        "post": DataPlane(behind, limits, kept, name="post"),
    })  # fmt: skip
    with deciding(planes) as running:
        bodies = [
            ask(choice(*POST)), ask(choice(*POST), model="post"), ask(choice(*NEWS)),
            ask({"type": "locate", "instructions": "?"}),
        ]  # fmt: skip
        assert [decide(running, body).status_code for body in bodies] == [503, 503, 200, 400]


def test_a_reply_that_cannot_be_written_is_an_error_and_no_silence(
    fake_folder: FakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets a 500 and the connection goes on: on the short way, by which whole requests come."""
    monkeypatch.setattr(routes, "openai_error", lambda _: Reply(b"", 999))
    body = json.dumps(ask(choice(*POST))).encode()
    request = b"POST /v1/decisions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with deciding(fake_folder, upstream={"url": "http://127.0.0.1:9/v1", "connect_s": 0.5}) as running:
        port = httpx.URL(running.url).port or 0
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            for _ in range(2):
                client.sendall(request)
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 500")
