"""Questions that no family here answers go upstream: a second gateway on a family of its own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from contract.errors import EnvironmentProblem, NotReady
from serve.access.key_store import open_keys
from serve.access.keys import KeyLimits
from serve.dataplane.family_planes import FamilyPlanes
from serve.dataplane.plane import DataPlane
from serve.local import launcher
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.settings.stages import FakeSettings
from serve.settings.upstream import UpstreamSettings
from serve.types.stage import Snapshot
from tests.ports import free_port
from tests.serve.http.decisions.odd import Odd
from tests.serve.http.decisions.parts import NEWS, POST, Deciding, ask, choice, decide, deciding
from tests.serve.parts import FakeFolder, Kept, snapshot_of, two_stage_policy


@pytest.fixture
def heard() -> list[tuple[bytes, bytes, float]]:
    """What a listener hears."""
    return []


@pytest.fixture
def news(fake_folder: FakeFolder, above: Deciding, heard: list[Any]) -> Iterator[Deciding]:
    """A gateway of news with the other one upstream."""

    def listener(*told: Any) -> None:
        heard.append(told)

    upstream = {"url": f"{above.url}/v1", "usd_per_1k": 30.0}
    with deciding(fake_folder, upstream=upstream, listener=listener) as running:
        yield running


def test_what_nobody_here_answers_goes_on_as_it_came(
    news: Deciding, above: Deciding, heard: list[Any]
) -> None:
    """The reply is the upstream's to the byte, but for the headers that say whose it is."""
    body = ask(choice(*POST), {"type": "predicate", "name": "junk", "instructions": "?"}, strange=[1, 2])
    direct = decide(above, body, **{"x-request-id": "same"})
    reply = decide(news, body, **{"x-request-id": "same"})
    assert (reply.status_code, reply.content) == (200, direct.content)
    assert reply.headers["x-sluice-variant"] == "upstream"
    assert reply.headers["x-sluice-upstream-request-id"] == "same"
    [(sent, got, seconds)] = heard
    assert (json.loads(sent), got) == (body, reply.content)
    assert 0 < seconds < 10
    record = news.recorder.answers[-1]
    assert (record.model, list(record.variants), record.first) == ("upstream", ["upstream"] * 2, "upstream")
    assert record.prices is not None
    assert sum(record.prices.charges(record.runs()).values()) == pytest.approx(0.06)


def test_a_mixed_request_is_split_and_its_answers_come_in_order(news: Deciding, heard: list[Any]) -> None:
    """Ours and the upstream's, each where its question stood; the upstream sees its own questions alone."""
    body = ask(choice(*POST, name="a"), choice(*NEWS, name="b"), choice(*POST, name="c"), deadline_ms=5000)
    reply = decide(news, body)
    value = reply.json()
    assert [answer["name"] for answer in value["answers"]] == ["a", "b", "c"]
    assert value["answers"][0]["choice"] in POST
    assert value["answers"][1]["choice"] in NEWS
    models = [standing["model"] for standing in value["sluice"]["answers"]]
    assert models == ["upstream", "cascade", "upstream"]
    assert reply.headers["x-sluice-variant"].startswith("upstream,fake-")
    sent = json.loads(heard[0][0])
    assert [question["name"] for question in sent["questions"]] == ["a", "c"]
    assert "deadline_ms" not in sent


def test_the_other_form_is_split_too(news: Deciding) -> None:
    """Answers by name, from both."""
    questions = {
        "post": {"type": "choice", "instructions": "?", "criteria": dict.fromkeys(POST)},
        "news": {"type": "choice", "instructions": "?", "criteria": dict.fromkeys(NEWS)},
    }
    reply = decide(news, {"model": "m", "state": "sport: a", "questions": questions}, "/v1/systemone")
    value = reply.json()["answers"]
    assert (value["post"]["choice"] in POST, value["news"]["choice"] in NEWS) == (True, True)


def test_the_upstreams_refusal_is_the_clients(news: Deciding) -> None:
    """Of a whole request and of a part: status, words and code are those of the upstream."""
    for questions in ([choice("rain", "sun")], [choice(*NEWS), choice("rain", "sun")]):
        reply = decide(news, ask(*questions))
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "question_not_served"
    assert news.recorder.refusals[-1] == ("upstream", "client_error", 1)


def test_a_gateway_without_a_family_passes_everything_on(above: Deciding) -> None:
    """As a proxy begins; without an upstream it says that it is not ready."""

    def nothing() -> Snapshot:
        raise NotReady("no family yet")

    with deciding(nothing, upstream={"url": f"{above.url}/v1"}) as running:
        assert decide(running, ask(choice(*POST))).status_code == 200
    with deciding(nothing) as running:
        assert decide(running, ask(choice(*POST))).status_code == 503


def test_an_upstream_that_is_away_is_said(fake_folder: FakeFolder) -> None:
    """503 with when to come back; what is answered here still is."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with deciding(fake_folder, upstream={"url": nobody, "connect_s": 0.5}) as running:
            reply = decide(running, ask(choice(*POST)))
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            assert reply.json()["error"]["code"] == "not_ready"
            assert decide(running, ask(choice(*NEWS))).status_code == 200
            assert running.recorder.refusals == [("upstream", "overloaded", 1)]


def test_a_key_of_the_settings_goes_on_and_the_clients_does_not(
    fake_folder: FakeFolder, odd: tuple[Odd, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment or from a file, which is read again when it changes; whose account it is, too."""
    app, url = odd
    headers = {"openai-version": "1", "set-cookie": "a=b", "openai-organization": "ours"}
    app.reply = JSONResponse({"answers": [{"type": "refusal"}]}, headers=headers)
    monkeypatch.setenv("UPSTREAM_KEY", "ours")
    secret = tmp_path / "key"
    secret.write_text("filed\n")
    body = ask(choice(*POST))
    for setting, wanted in (({"key_env": "UPSTREAM_KEY"}, "ours"), ({"key_file": str(secret)}, "filed")):
        with deciding(fake_folder, upstream={"url": url} | setting) as running:
            for _ in range(2):
                reply = decide(
                    running, body, authorization="Bearer theirs", cookie="c=d", **{"openai-project": "p"}
                )
        assert reply.status_code == 200
        seen = app.seen[-1]
        assert seen["authorization"] == f"Bearer {wanted}"
        assert not {"cookie", "openai-project"} & seen.keys()
        assert reply.headers["openai-version"] == "1"
        assert not {"set-cookie", "openai-organization"} & reply.headers.keys()


def test_the_clients_key_goes_on_only_while_this_gateway_has_none(
    fake_folder: FakeFolder, odd: tuple[Odd, str], tmp_path: Path
) -> None:
    """A key of ours never leaves the house."""
    app, url = odd
    app.reply = JSONResponse({"answers": [{"type": "refusal"}]})
    with deciding(fake_folder, upstream={"url": url}) as running:
        own = {"idempotency-key": "order-1", "openai-project": "p"}
        decide(running, ask(choice(*POST)), authorization="Bearer theirs", **own)
        assert app.seen[-1]["authorization"] == "Bearer theirs"
        assert own.items() <= app.seen[-1].items()
        key, book = open_keys(str(tmp_path)).create("web", ("infer",), KeyLimits())
        running.gate.take(book)
        assert decide(running, ask(choice(*POST)), authorization=f"Bearer {key}").status_code == 200
        assert "authorization" not in app.seen[-1]


@pytest.mark.parametrize(
    ("reply", "setting", "status"),
    [
        (JSONResponse({"error": {}}, 401), {"key_env": "UPSTREAM_KEY"}, 500),
        (JSONResponse({"error": {}}, 401), {}, 401),
        (Response(status_code=302, headers={"location": "http://127.0.0.1:1/"}), {}, 500),
        (JSONResponse({"answers": ["x" * 200]}), {"max_reply_bytes": 100}, 500),
        (JSONResponse({"error": {}}, 429, headers={"retry-after": "7"}), {}, 429),
    ],
)
def test_replies_that_are_not_for_the_client_stay_here(
    fake_folder: FakeFolder,
    odd: tuple[Odd, str],
    monkeypatch: pytest.MonkeyPatch,
    reply: Response,
    setting: dict[str, Any],
    status: int,
) -> None:
    """Our key refused, a redirect, a reply without end; the client's own key is the client's affair."""
    monkeypatch.setenv("UPSTREAM_KEY", "ours")
    app, url = odd
    app.reply = reply
    with deciding(fake_folder, upstream={"url": url} | setting) as running:
        got = decide(running, ask(choice(*POST)))
        assert got.status_code == status
        assert got.headers.get("retry-after") == reply.headers.get("retry-after")
        mixed = decide(running, ask(choice(*POST), choice(*NEWS)))
        assert mixed.status_code == status


def test_a_deadline_ends_the_wait_and_no_more_are_out_than_may(
    fake_folder: FakeFolder, odd: tuple[Odd, str]
) -> None:
    """504 for whoever waited too long; 429 for whoever would be one too many."""
    app, url = odd
    app.reply = JSONResponse({"answers": [{"type": "refusal"}]})
    app.answer.clear()
    with deciding(fake_folder, upstream={"url": url, "max_in_flight": 1}) as running:
        late = decide(running, ask(choice(*POST), deadline_ms=200))
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        body, web = ask(choice(*POST), deadline_ms=20_000), {"x-request-id": "waits"}
        waiting = threading.Thread(target=decide, args=(running, body), kwargs=web)
        waiting.start()
        try:
            while not app.seen or app.seen[-1]["x-request-id"] != "waits":
                assert app.came.acquire(timeout=20)
            full = decide(running, ask(choice(*POST)))
        finally:
            app.answer.set()
            waiting.join()
    assert (full.status_code, full.json()["error"]["code"]) == (429, "overloaded")


@pytest.mark.parametrize(
    "setting",
    [
        {"url": "ftp://a"},
        {"url": "http://"},
        {"url": "http://u:p@a/v1"},
        {"url": "http://a/v1?key=1"},
        {"url": "http://a/v1", "key_env": "sk-abc def"},
        {"url": "http://a/v1", "key_env": "A", "key_file": "/b"},
        {"url": "http://a/v1", "key_file": "b"},
    ],
)
def test_addresses_and_keys_that_cannot_be_are_refused(setting: dict[str, Any]) -> None:
    """No key in the address, and none where the name of one belongs."""
    with pytest.raises(ValueError, match="upstream"):
        UpstreamSettings.model_validate(setting)


def test_each_of_several_families_answers_its_own(fake_folder: FakeFolder, post_folder: FakeFolder) -> None:
    """By labels, by name, and all at once in one request; a variant by its long name."""
    planes, limits, kept = FamilyPlanes(), RequestLimits(), Kept()
    snapshots = {
        name: snapshot_of(fakes, two_stage_policy(), kept)
        for name, fakes in (("news", fake_folder), ("post", post_folder))
    }
    planes.serve({
        "news": DataPlane(lambda: snapshots["news"], limits, kept, name="news"),
        "post": DataPlane(lambda: snapshots["post"], limits, kept, name="post"),
    })  # fmt: skip
    settings = {
        "questions": {"junk": {"model": "post"}, "quick": {"model": "news/fake-small"}},
        "models": {"post": {"yes_label": "spam"}},
    }
    junk = {"type": "predicate", "name": "junk", "instructions": "?"}
    with deciding(planes, settings=settings) as running:
        body = ask(choice(*POST), choice(*NEWS), junk, choice(*NEWS, name="quick"))
        value = decide(running, body).json()
        assert [told["model"] for told in value["sluice"]["answers"]] == [
            "post",
            "news",
            "post",
            "news/fake-small",
        ]
        assert value["answers"][2]["probability"] == pytest.approx(
            {entry["value"]: entry["probability"] for entry in value["answers"][0]["probabilities"]}["spam"]
        )
        wrong = decide(running, ask(choice(*POST), model="news"))
        assert "news has no label 'ham'" in wrong.json()["error"]["message"]
        planes.serve({"news": DataPlane(lambda: snapshots["news"], limits, kept, name="news")})
        gone = decide(running, ask(choice(*POST)))
        assert gone.json()["error"]["code"] == "question_not_served"
        long_name = decide(running, ask(choice(*NEWS, name="quick"), model="news"))
        assert long_name.json()["sluice"]["answers"][0]["variant"] == "fake-small"


def test_a_gateway_does_not_start_without_the_key_that_it_is_told_to_show() -> None:
    """The variable is named, and nothing has been started by then."""
    upstream = UpstreamSettings(url="http://127.0.0.1:9/v1", key_env="NO_SUCH_VARIABLE")
    settings = Settings(fake=FakeSettings(), upstream=upstream, port=free_port(), admin_port=free_port())
    with pytest.raises(EnvironmentProblem, match="NO_SUCH_VARIABLE"):
        launcher.start(settings)


def test_a_key_that_is_gone_is_not_replaced_by_the_clients(
    fake_folder: FakeFolder, odd: tuple[Odd, str], tmp_path: Path
) -> None:
    """Nothing is asked without it."""
    app, url = odd
    before = len(app.seen)
    with deciding(fake_folder, upstream={"url": url, "key_file": str(tmp_path / "gone")}) as running:
        reply = decide(running, ask(choice(*POST)), authorization="Bearer theirs")
    assert (reply.status_code, len(app.seen)) == (503, before)


def test_idempotency_keys_of_two_clients_or_two_bodies_are_two(
    fake_folder: FakeFolder, odd: tuple[Odd, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the upstream they come from one account; a second try of the same is the same."""
    app, url = odd
    app.reply = JSONResponse({"answers": [{"type": "refusal"}]})
    monkeypatch.setenv("UPSTREAM_KEY", "ours")
    store = open_keys(str(tmp_path))
    with deciding(fake_folder, upstream={"url": url, "key_env": "UPSTREAM_KEY"}) as running:
        one, _ = store.create("one", ("infer",), KeyLimits())
        two, book = store.create("two", ("infer",), KeyLimits())
        running.gate.take(book)
        found = []
        for key, body in ((one, POST), (one, POST), (two, POST), (one, POST[::-1])):
            told = {"authorization": f"Bearer {key}", "idempotency-key": "order-1"}
            assert decide(running, ask(choice(*body)), **told).status_code == 200
            found.append(app.seen[-1]["idempotency-key"])
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert "order-1" not in found
