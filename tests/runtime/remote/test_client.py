"""Asking a model behind HTTP: real servers that answer, fail, are late, busy, or not there."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import EnvironmentProblem, RemoteFailure
from contract.remote import RemoteModel
from runtime.remote.client import RemoteClient, SyncClient
from runtime.remote.forms.said import tokens_of
from runtime.remote.rate import Rate
from runtime.remote.retrying import LONGEST_PAUSE_S, Retries, retry_after_s
from tests.ports import free_port
from tests.support.known_model import LABELS, Fault, KnownModel, asking, shared

TEXTS = [f"story {i}" for i in range(24)]

serving, known, url = shared(KnownModel)


def ask(
    model: RemoteModel, texts: list[str], **options: float
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Labels, probabilities and USD of some texts."""
    client = SyncClient(model, LABELS)
    try:
        found = client.ask(texts, **options)  # type: ignore[arg-type]
    finally:
        client.close()
    return found.labels, found.probabilities, found.usd


@pytest.mark.parametrize(("form", "requests"), [("decisions", 24), ("chat", 24), ("oip", 2)])
def test_every_form_brings_the_models_own_answers(
    known: KnownModel, url: str, form: str, requests: int
) -> None:
    """Labels and probabilities are those of the model; an inference server takes 16 texts at a time."""
    labels, probabilities, _ = ask(asking(url, form), TEXTS)
    assert labels.tolist() == known.labels_of(TEXTS)
    assert probabilities == pytest.approx(known.probabilities(TEXTS), abs=1e-6)
    assert len(known.asked) == requests


def test_the_price_is_by_call_and_by_token(known: KnownModel, url: str) -> None:
    """120 tokens in and 8 out, of 24 calls."""
    model = asking(url, "chat", usd_per_call=0.5, usd_per_1k_tokens_in=2.0, usd_per_1k_tokens_out=10.0)
    assert ask(model, TEXTS)[2] == pytest.approx(24 * (0.5 + 0.24 + 0.08))


def test_repeats_ask_again_and_tell_the_agreement(known: KnownModel, url: str) -> None:
    """A model that tells no probabilities and always says the same is sure."""
    known.tells = False
    labels, probabilities, usd = ask(asking(url, repeats=3, usd_per_call=1.0), TEXTS[:2])
    assert len(known.asked) == 6
    assert usd == 6
    assert probabilities is not None
    assert probabilities.max(axis=1).tolist() == [1.0, 1.0]
    assert labels.tolist() == known.labels_of(TEXTS[:2])


def test_no_more_requests_are_out_than_the_record_says(known: KnownModel, url: str) -> None:
    """Of 24 questions at once, 3 are inside."""
    known.delay_s = 0.02
    ask(asking(url, max_concurrency=3), TEXTS)
    assert known.most == 3


def test_the_key_comes_from_the_environment_and_is_read_again_when_refused(
    known: KnownModel, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is replaced while a client runs is found; a wrong one is not asked with twice more."""
    known.key = "first"
    monkeypatch.setenv("KNOWN_KEY", "first")
    client = SyncClient(asking(url, credentials={"env": "KNOWN_KEY"}), LABELS)
    client.ask(TEXTS[:1])
    known.key = "second"
    monkeypatch.setenv("KNOWN_KEY", "second")
    client.ask(TEXTS[:1])
    known.key = "third"
    known.asked.clear()
    with pytest.raises(RemoteFailure, match="credentials") as found:
        client.ask(TEXTS[:1])
    client.close()
    assert (found.value.kind, found.value.status, len(known.asked)) == ("rejected", 401, 1)
    assert "second" not in str(found.value)


def test_a_key_in_a_file_goes_into_the_header_that_is_named(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """Line ends around the key do not matter."""
    (tmp_path / "key").write_text("s3cret\n")
    told = {"file": str(tmp_path / "key"), "header": "api-key", "scheme": ""}
    ask(asking(url, credentials=told), TEXTS[:1])
    assert known.asked[0].headers["api-key"] == "s3cret"


@pytest.mark.parametrize("told", [{"env": "NOT_SET_ANYWHERE"}, {"file": "/nowhere/key"}])
def test_a_key_that_is_not_there_is_said_before_anything_is_asked(told: dict[str, str]) -> None:
    """The variable or the file is named."""
    with pytest.raises(EnvironmentProblem, match=next(iter(told.values()))):
        RemoteClient(asking("http://127.0.0.1:9", credentials=told), LABELS)


@pytest.mark.parametrize("fault", [Fault(500), Fault(502), Fault(503)])
def test_a_broken_server_is_asked_again(known: KnownModel, url: str, fault: Fault) -> None:
    """One failure is made good by the next try."""
    known.faults.append(fault)
    labels, _, _ = ask(asking(url), TEXTS[:1])
    assert labels.tolist() == known.labels_of(TEXTS[:1])
    assert len(known.asked) == 2


@pytest.mark.parametrize(
    ("fault", "kind", "requests"),
    [
        (Fault(500), "broken", 2),
        (Fault(400, body=b'{"error": "too long"}'), "rejected", 1),
        (Fault(404), "rejected", 1),
        (Fault(200, body=b"<html>"), "unreadable", 1),
        (Fault(200, body=b'{"answers": []}'), "unreadable", 1),
        (Fault(200, body=b'{"answers": [{"type": "refusal"}]}'), "declined", 1),
        (Fault(200, body=b'{"answers": [{"type": "choice", "choice": "lorry"}]}'), "declined", 1),
        (Fault(302, headers={"location": "http://127.0.0.1:9/"}), "rejected", 1),
    ],
)
def test_each_failure_has_its_kind_and_only_passing_ones_are_tried_again(
    known: KnownModel, url: str, fault: Fault, kind: str, requests: int
) -> None:
    """With one further try allowed, a server's own errors are asked twice and all else once."""
    known.faults.extend([fault, fault])
    with pytest.raises(RemoteFailure) as found:
        ask(asking(url, retries=1), TEXTS[:1])
    assert (found.value.kind, len(known.asked)) == (kind, requests)


def test_nobody_listening_is_unreachable(url: str) -> None:
    """A closed port says so, in a sentence."""
    with pytest.raises(RemoteFailure) as found:
        ask(asking(f"http://127.0.0.1:{free_port()}", retries=0), TEXTS[:1])
    assert found.value.kind == "unreachable"


def test_a_server_that_never_answers_is_late(known: KnownModel, url: str) -> None:
    """The record's timeout ends a request, the caller's patience too."""
    known.faults.extend([Fault(hang=True), Fault(hang=True)])
    with pytest.raises(RemoteFailure) as found:
        ask(asking(url, timeout_s=0.05, retries=0), TEXTS[:1])
    assert found.value.kind == "late"
    with pytest.raises(RemoteFailure) as found:
        ask(asking(url), TEXTS[:1], patience_s=0.05)
    assert found.value.kind == "late"


def test_a_busy_server_is_left_alone_as_long_as_it_says(known: KnownModel, url: str) -> None:
    """The next request goes out after Retry-After, whoever asks it."""
    known.faults.append(Fault(429, headers={"retry-after": "0.2"}))

    async def times() -> tuple[float, float]:
        client = RemoteClient(asking(url), LABELS)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await client.ask(TEXTS[:1])
        again = loop.time() - began
        await client.ask(TEXTS[1:2])
        await client.close()
        return again, loop.time() - began - again

    first, second = asyncio.run(times())
    assert first >= 0.2
    assert second < first


def test_who_cannot_wait_for_a_busy_server_is_told_when_it_is_back(known: KnownModel, url: str) -> None:
    """With less patience than Retry-After, nothing is sent and the rest of the pause is told."""
    known.faults.append(Fault(503, headers={"retry-after": "60"}))

    async def told() -> RemoteFailure:
        client = RemoteClient(asking(url), LABELS)
        with pytest.raises(RemoteFailure):
            await client.ask(TEXTS[:1], retries=0)
        with pytest.raises(RemoteFailure) as found:
            await client.ask(TEXTS[:1], patience_s=1.0)
        await client.close()
        return found.value

    failure = asyncio.run(told())
    assert (failure.kind, len(known.asked)) == ("busy", 1)
    assert failure.retry_after_s == pytest.approx(60, abs=1)


def test_a_rate_spaces_requests_out(known: KnownModel, url: str) -> None:
    """Four requests at 50 a second take three fiftieths of one at least."""

    async def took() -> float:
        client = RemoteClient(asking(url, max_per_s=50.0), LABELS)
        began = asyncio.get_running_loop().time()
        await client.ask(TEXTS[:4])
        await client.close()
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(took()) >= 0.06


def test_whether_a_server_is_there_costs_nothing(known: KnownModel, url: str) -> None:
    """A look says why it is not there, and asks no question."""

    async def look(address: str) -> str | None:
        client = RemoteClient(asking(address), LABELS)
        try:
            return await client.problem()
        finally:
            await client.close()

    assert asyncio.run(look(url)) is None
    assert asyncio.run(look(f"http://127.0.0.1:{free_port()}")) is not None
    assert known.asked == []


NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@given(st.floats(0, 1e6))
def test_seconds_and_dates_of_retry_after_are_read_alike(seconds: float) -> None:
    """Both forms of RFC 9110 give the seconds until then, an hour at the most."""
    whole = math.floor(seconds)
    most = min(whole, LONGEST_PAUSE_S)
    assert retry_after_s(str(whole), NOW) == most
    then = datetime.fromtimestamp(NOW.timestamp() + whole, UTC)
    assert retry_after_s(format_datetime(then, usegmt=True), NOW) == most


@given(st.text(max_size=40))
def test_no_retry_after_breaks_anything(text: str) -> None:
    """Whatever stands there is a time between nothing and an hour, or is not read."""
    found = retry_after_s(text, NOW)
    assert found is None or 0 <= found <= LONGEST_PAUSE_S


@pytest.mark.anyio
async def test_a_server_sets_no_cookies(url: str) -> None:
    """What it sets with one reply does not come back with the next request."""
    seen = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("cookie"))
        return httpx.Response(500, headers={"set-cookie": "session=1"})

    client = RemoteClient(asking(url), LABELS, transport=httpx.MockTransport(reply))
    for _ in range(2):
        with pytest.raises(RemoteFailure):
            await client.ask(["one"], retries=0)
    await client.close()
    assert seen == [None, None]


def test_further_tries_have_a_budget() -> None:
    """Twenty are there at first, then one for every five questions; waits grow by twice each time."""
    retries = Retries(seed=1)
    failure = RemoteFailure("broken", "x")
    waits = [retries.again_s(failure, 1) for _ in range(21)]
    assert waits[:20].count(None) == 0
    assert waits[20] is None
    for _ in range(5):
        retries.begun()
    third = retries.again_s(failure, 3)
    assert third is not None
    assert 0.5 <= third <= 1.5
    assert retries.again_s(RemoteFailure("declined", "x"), 1) is None


def test_a_server_that_is_busy_without_saying_how_long_is_left_alone_longer_each_time() -> None:
    """One second, two, four; an answer begins anew."""
    retries = Retries()
    busy = RemoteFailure("busy", "x")
    now, pauses = 0.0, []
    for _ in range(3):
        retries.failed(busy, now)
        pauses.append(retries.resumes_at - now)
        now = retries.resumes_at
    assert pauses == [1, 2, 4]
    retries.answered()
    retries.failed(busy, now)
    assert retries.resumes_at - now == 1


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ({"input_tokens": None, "prompt_tokens": 120, "completion_tokens": 8}, (120, 8)),
        ({"input_tokens": 120.0, "output_tokens": 0}, (120, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (None, 0)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 1.5, "completion_tokens": "8"}, (None, None)),
    ],
)
def test_tokens_that_are_not_told_are_not_none_spent(usage: object, counts: tuple[int | None, ...]) -> None:
    """The first name with a whole number counts; where there is none nothing is known."""
    assert tokens_of({"usage": usage}) == counts


def test_no_proxy_is_taken_from_the_environment(
    known: KnownModel, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and texts go where the record says, whatever a node's variables are."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert ask(asking(url, retries=0), TEXTS[:1])[0].tolist() == known.labels_of(TEXTS[:1])


def test_who_gives_up_waiting_for_a_place_in_the_rate_leaves_it_to_the_others() -> None:
    """Eight that leave while waiting, the first one too, cost those after them nothing."""

    async def waits() -> float:
        rate = Rate(20.0, time.monotonic)
        await rate.turn(math.inf)
        began = time.monotonic()
        leaving = [asyncio.create_task(rate.turn(math.inf)) for _ in range(8)]
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await rate.turn(math.inf)
        return time.monotonic() - began

    assert asyncio.run(waits()) < 0.2


def test_a_rate_says_at_once_that_there_is_no_place_in_time() -> None:
    """Those in line count: the third place at one a second is two seconds away."""

    async def told() -> RemoteFailure:
        rate = Rate(1.0, lambda: 100.0)
        await rate.turn(math.inf)
        waiting = asyncio.create_task(rate.turn(math.inf))
        await asyncio.sleep(0)
        with pytest.raises(RemoteFailure) as found:
            await rate.turn(102.0)
        waiting.cancel()
        return found.value

    failure = asyncio.run(told())
    assert failure.kind == "busy"
    assert failure.retry_after_s == pytest.approx(2.0)
