"""A stage behind HTTP: a real server that answers, is late, is busy, fails, or is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    RequestError,
    StageBroken,
    StageFailed,
)
from contract.family import artifact_of
from contract.files import write_json
from contract.probabilities import softmax
from contract.remote import RemoteModel
from runtime.load import load_variant
from runtime.remote.client import RemoteClient
from serve.settings.gateway import Settings
from serve.settings.resilience import BreakerRules, RetryRules
from serve.settings.stages import FakeSettings, StageSettings
from serve.stages.http import HttpStage, ServerForecast, load_http_stage
from tests.ports import free_port
from tests.serve.parts import FakeFolder, Kept, Served
from tests.support.known_model import LABELS, Fault, KnownModel, asking, known_model, shared

pytestmark = pytest.mark.anyio

TEXTS = [f"story {i}" for i in range(12)]
ONE_TRY = StageSettings(retries=RetryRules(share=0.0))

serving, known, url = shared(KnownModel)


@asynccontextmanager
async def stage_on(
    url: str, form: str = "decisions", settings: StageSettings | None = None, **changes: Any
) -> AsyncIterator[tuple[HttpStage, Kept]]:
    """A stage that asks the server, and what was recorded."""
    recorder = Kept()
    client = RemoteClient(asking(url, form, **changes), LABELS)
    stage = HttpStage("large", "0" * 64, client, settings or StageSettings(), recorder)
    try:
        yield stage, recorder
    finally:
        await stage.close()


async def refused(stage: HttpStage, texts: list[str], patience_s: float | None = None) -> RequestError:
    """What a request is refused with."""
    deadline_at = None if patience_s is None else time.monotonic() + patience_s
    with pytest.raises(RequestError) as found:
        await stage.logits(texts, deadline_at)
    return found.value


@pytest.mark.parametrize(("form", "requests"), [("decisions", 12), ("chat", 12), ("oip", 1)])
async def test_a_stage_gives_the_servers_own_probabilities(
    known: KnownModel, url: str, form: str, requests: int
) -> None:
    """The softmax of its logits is what the server said, in order, and its price is recorded."""
    async with stage_on(url, form, usd_per_call=0.01) as (stage, recorder):
        logits = await stage.logits(TEXTS, None)
        assert softmax(logits) == pytest.approx(known.probabilities(TEXTS), abs=1e-4)
        assert len(known.asked) == requests
        assert sum(batch.items for batch in recorder.batches) == 12
        assert sum(batch.charged_usd for batch in recorder.batches) == pytest.approx(0.12)
        assert await stage.ready()
        assert stage.logits_now(TEXTS, None) is None


async def test_requests_of_many_clients_stay_within_the_concurrency(known: KnownModel, url: str) -> None:
    """Twelve clients at once: three requests are out at a time, and all are answered."""
    known.delay_s = 0.02
    async with stage_on(url, max_concurrency=3) as (stage, _):
        found = await asyncio.gather(*(stage.logits([text], None) for text in TEXTS))
    assert np.concatenate(found).argmax(axis=1).tolist() == known.labels_of(TEXTS)
    assert known.most == 3


async def test_a_burst_that_the_server_can_take_side_by_side_is_not_refused(
    known: KnownModel, url: str
) -> None:
    """Eight requests at once of which each takes a tenth of the time there is are all answered."""
    known.delay_s = 0.05
    async with stage_on(url, max_concurrency=8) as (stage, _):
        for _ in range(3):
            await stage.logits(TEXTS[:1], time.monotonic() + 5)
        deadline_at = time.monotonic() + 0.4
        found = await asyncio.gather(*(stage.logits([text], deadline_at) for text in TEXTS[:8]))
    assert len(found) == 8


def test_a_server_answers_in_rounds_of_calls() -> None:
    """With four calls at a time of one second each, the fifth place is answered after two."""
    forecast = ServerForecast(1, 4)
    assert forecast.ends_s(0.0, 1, 1) == 0
    forecast.came_back(1, 0.0, 1.0)
    ends = [forecast.ends_s(0.0, place, place) for place in (1, 4, 5, 9)]
    assert ends == pytest.approx([1, 1, 2, 3])
    forecast.under_way = 4
    assert forecast.ends_s(0.0, 1, 1) == pytest.approx(2)


async def test_a_failed_request_is_sent_again_within_the_gateways_budget(known: KnownModel, url: str) -> None:
    """One error is made good; with a budget of nothing it is the answer."""
    known.faults.append(Fault(502))
    async with stage_on(url) as (stage, recorder):
        await stage.logits(TEXTS[:1], None)
        assert ("retry_sent", "large", 1) in recorder.incidents
        assert ("call_broken", "large", 1) in recorder.incidents
    known.faults.append(Fault(502))
    async with stage_on(url, settings=ONE_TRY) as (stage, _):
        assert isinstance(await refused(stage, TEXTS[:1]), NotReady)


async def test_a_server_that_is_gone_opens_the_breaker_and_is_not_asked_then() -> None:
    """After five failures requests are refused at once, and a probe asks again after the pause."""
    rules = StageSettings(
        retries=RetryRules(share=0.0), breaker=BreakerRules(min_failures=5, open_s=0.05, max_open_s=0.05)
    )
    port = free_port()
    async with stage_on(f"http://127.0.0.1:{port}", settings=rules) as (stage, recorder):
        for _ in range(5):
            await refused(stage, TEXTS[:1])
        assert stage.look() == "open"
        assert "not asked now" in str(await refused(stage, TEXTS[:1]))
        known = KnownModel()
        with known_model(known, port):
            until = time.monotonic() + 10
            while stage.look() == "open":
                assert time.monotonic() < until
                await asyncio.sleep(0)
            logits = await stage.logits(TEXTS[:1], None)
        assert logits.argmax(axis=1).tolist() == known.labels_of(TEXTS[:1])
        assert stage.look() == "closed"
        assert [one for one, _, _ in recorder.incidents if one == "breaker_open"] == ["breaker_open"]


async def test_a_busy_server_is_waited_for_where_there_is_time(known: KnownModel, url: str) -> None:
    """A pause within the deadline delays an answer; one beyond it refuses at once, and opens no breaker."""
    known.faults.append(Fault(429, headers={"retry-after": "0.1"}))
    async with stage_on(url) as (stage, recorder):
        began = time.monotonic()
        await stage.logits(TEXTS[:1], began + 5)
        assert time.monotonic() - began >= 0.1
        known.faults.append(Fault(429, headers={"retry-after": "30"}))
        for _ in range(6):
            problem = await refused(stage, TEXTS[:1], patience_s=1.0)
            assert isinstance(problem, Overloaded)
            assert 20 < problem.retry_after_s <= 30
        assert stage.look() == "closed"
        assert ("call_busy", "large", 1) in recorder.incidents
    assert len(known.asked) == 3


async def test_a_deadline_is_kept_and_is_no_fault_of_the_server(known: KnownModel, url: str) -> None:
    """Requests that have too little time are told so; the server is not blamed for answering others."""
    async with stage_on(url) as (stage, _):
        known.faults.append(Fault(hang=True))
        began = time.monotonic()
        assert isinstance(await refused(stage, TEXTS[:1], patience_s=0.1), DeadlineExceeded)
        assert time.monotonic() - began < 1
        await stage.logits(TEXTS[:1], None)
        assert stage.look() == "closed"


async def test_a_server_that_is_slower_than_its_record_allows_is_a_failure(
    known: KnownModel, url: str
) -> None:
    """The record's timeout ends a request that has time left, and counts against the server."""
    known.faults.extend([Fault(hang=True)] * 2)
    async with stage_on(url, settings=ONE_TRY, timeout_s=0.05) as (stage, recorder):
        assert isinstance(await refused(stage, TEXTS[:1]), NotReady)
        assert ("call_late", "large", 1) in recorder.incidents


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(200, body=b"<html>"), StageBroken),
        (Fault(200, body=b'{"answers": []}'), StageBroken),
        (Fault(401), StageBroken),
        (Fault(404), StageBroken),
        (Fault(400, body=b'{"error": "secret details"}'), StageFailed),
        (Fault(200, body=b'{"answers": [{"type": "choice", "choice": "lorry"}]}'), StageFailed),
    ],
)
async def test_replies_that_are_no_answer_fail_with_a_generic_text(
    known: KnownModel, url: str, fault: Fault, kind: type[RequestError], caplog: pytest.LogCaptureFixture
) -> None:
    """What the server said, which may quote a text, is told neither to clients nor to the log."""
    known.faults.append(fault)
    async with stage_on(url) as (stage, _):
        problem = await refused(stage, TEXTS[:1])
    assert type(problem) is kind
    assert "is not answered by its server" in caplog.text
    for told in (str(problem), caplog.text):
        assert "secret" not in told
        assert "lorry" not in told


async def test_one_request_in_a_call_does_not_fail_another(known: KnownModel, url: str) -> None:
    """A batch that the server will not have is asked again one request at a time."""
    async with stage_on(url, "oip", max_concurrency=1) as (stage, _):
        known.delay_s = 0.05
        first = asyncio.create_task(stage.logits(TEXTS[:1], None))
        while not known.asked:
            await asyncio.sleep(0)
        known.faults.extend([Fault(400), Fault(400)])
        others = [asyncio.create_task(stage.logits([text], None)) for text in TEXTS[1:4]]
        found = await asyncio.gather(first, *others, return_exceptions=True)
    assert [isinstance(one, StageFailed) for one in found] == [False, True, False, False]


async def test_a_request_that_nobody_waits_for_is_ended(known: KnownModel, url: str) -> None:
    """When its client leaves, the connection is closed rather than paid for to the end."""
    known.faults.append(Fault(hang=True))
    async with stage_on(url) as (stage, _):
        task = asyncio.create_task(stage.logits(TEXTS[:1], None))
        while not known.inside:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        until = time.monotonic() + 5
        while stage._calls:  # the call ends, not only the wait for it
            assert time.monotonic() < until
            await asyncio.sleep(0)
        assert stage.look() == "closed"
        await stage.logits(TEXTS[:1], None)


@pytest.mark.parametrize(("form", "path"), [("oip", ""), ("decisions", "/v1")])
async def test_another_sluicegate_is_a_server_like_any_other(
    served: Served, fake_folder: FakeFolder, form: str, path: str
) -> None:
    """Asked for one of its variants by either form, it gives that variant's own probabilities."""
    model = RemoteModel.model_validate(
        {"form": form, "url": f"{served.url}{path}", "model": "fake-large", "usd_per_call": 0.0}
    )
    stage = HttpStage("large", "0" * 64, RemoteClient(model, LABELS), StageSettings(), Kept())
    logits = await stage.logits(TEXTS[:8], None)
    await stage.close()
    own = load_variant(fake_folder.folder, fake_folder.family, "fake-large").logits(TEXTS[:8])
    assert softmax(logits) == pytest.approx(softmax(own), abs=1e-4)


@pytest.mark.parametrize("status", [429, 503, 408, 405])
async def test_what_a_busy_server_says_is_not_in_the_log(
    known: KnownModel, url: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The body of any refusal may quote a text: the status is told, and no more."""
    known.faults.append(Fault(status, {"retry-after": "30"}, b'{"error": "secret limit of acme"}'))
    async with stage_on(url, settings=ONE_TRY) as (stage, _):
        await refused(stage, TEXTS[:1], patience_s=2.0)
    assert f"HTTP {status}" in caplog.text
    assert "secret" not in caplog.text


async def test_a_server_that_hangs_opens_the_breaker_however_near_deadlines_are(
    known: KnownModel, url: str
) -> None:
    """Of requests that came too late one runs on; when it has been out for too long, all were failures."""
    rules = StageSettings(retries=RetryRules(share=0.0), breaker=BreakerRules(min_failures=5))
    async with stage_on(url, settings=rules) as (stage, recorder):
        await stage.logits(TEXTS[:1], None)
        known.faults.extend([Fault(hang=True)] * 8)
        late = await asyncio.gather(*(refused(stage, [text], patience_s=0.1) for text in TEXTS[:6]))
        assert {type(problem) for problem in late} == {DeadlineExceeded}
        until = time.monotonic() + 10
        while stage.look() != "open":
            assert time.monotonic() < until
            await asyncio.sleep(0)
        assert "breaker_open" in [name for name, _, _ in recorder.incidents]


async def test_a_replica_has_its_share_of_the_limits(fake_folder: FakeFolder, tmp_path: Path) -> None:
    """Of eight requests at a time and four a second, four gateways have two and one each."""
    write_json(tmp_path / "large.json", asking("http://127.0.0.1:9", max_per_s=4.0).dump())
    fake = fake_folder.family.variant("fake-large")
    artifact = artifact_of(tmp_path, tmp_path / "large.json")
    large = fake.model_copy(update={"name": "large", "artifact": artifact})
    family = fake_folder.family.model_copy(update={"variants": (*fake_folder.family.variants, large)})
    stage = load_http_stage(Settings(fake=FakeSettings(), replicas=4), tmp_path, family, "large", Kept())
    assert (stage._client.model.max_per_s, stage._client.max_concurrency) == (1.0, 2)
    await stage.close()
