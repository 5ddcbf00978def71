"""POST /v1/decisions on a real server: the answers of the data plane, in the form of decision endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve.access.key_store import open_keys
from serve.access.keys import KeyLimits
from serve.http.fast_routes import HotRoutes
from serve.wire.decisions.schemas import DecisionError, DecisionReply, SystemOneReply
from tests.serve.http.decisions.parts import NEWS, SURE, Deciding, ask, certified, choice, deciding
from tests.serve.parts import FakeFolder

SETTINGS: dict[str, Any] = {
    "models": {"cascade": {"yes_label": "sport", "levels": list(NEWS), "values": [5, 4, 3, 2, 1]}},
    "questions": {
        "topic": {"model": "cascade"},
        "is_sport": {"model": "cascade"},
        "by_small": {"model": "fake-small"},
    },
}


@pytest.fixture(scope="module")
def news(fake_folder: FakeFolder) -> Iterator[Deciding]:
    """A certified cascade on the fake family."""
    with deciding(fake_folder, policy=certified(), settings=SETTINGS) as running:
        yield running


def decide(running: Deciding, body: dict[str, Any], **headers: str) -> httpx.Response:
    """Ask."""
    return httpx.post(f"{running.url}/v1/decisions", json=body, headers=headers)


def answered(running: Deciding, body: dict[str, Any]) -> dict[str, Any]:
    """Ask, and have the reply in its published form."""
    reply = decide(running, body)
    assert reply.status_code == 200, reply.text
    value: dict[str, Any] = reply.json()
    DecisionReply.model_validate(value)
    return value


@pytest.mark.parametrize("number", range(12))
def test_a_choice_of_all_labels_is_what_classify_answers(news: Deciding, number: int) -> None:
    """The same label, confidence, variant and policy, whatever the order of the choices."""
    text = f"politics: story {number}"
    plain = httpx.post(f"{news.url}/v1/classify", json={"inputs": text, "top_k": 5}).json()
    one = plain["outputs"][0]
    value = answered(news, ask(choice(*reversed(NEWS), name="topic"), text=text))
    [answer] = value["answers"]
    assert (answer["type"], answer["name"], answer["choice"]) == ("choice", "topic", one["label"])
    assert answer["confidence"] == pytest.approx(one["confidence"], abs=1e-6)
    top = {entry["label"]: entry["confidence"] for entry in one["top"]}
    assert [entry["value"] for entry in answer["probabilities"]] == list(reversed(NEWS))
    for entry in answer["probabilities"]:
        assert entry["probability"] == pytest.approx(top[entry["value"]], abs=1e-6)
    assert value["model"] == "gpt"
    [standing] = value["sluice"]["answers"]
    assert standing == {
        "model": "cascade", "variant": one["variant"], "escalated": one["escalated"], "degraded": False,
        "policy_version": plain["policy_version"], "certified": True,
    }  # fmt: skip


def test_a_part_of_the_labels_is_renormalised_and_its_certificate_denied(news: Deciding) -> None:
    """The ratio of two labels stays; the reason says how many were offered."""
    [whole] = answered(news, ask(choice(*NEWS)))["answers"]
    value = answered(news, ask(choice("tech", "sport")))
    [part] = value["answers"]
    every = {entry["value"]: entry["probability"] for entry in whole["probabilities"]}
    total = every["tech"] + every["sport"]
    for entry in part["probabilities"]:
        assert entry["probability"] == pytest.approx(every[entry["value"]] / total)
    [standing] = value["sluice"]["answers"]
    assert (standing["certified"], "2 of 5" in standing["reason"]) == (False, True)


def test_predicates_and_scores_are_read_as_the_settings_say(news: Deciding) -> None:
    """The yes is the label set, the values count as set, and all questions of a family cost one run."""
    before = len(news.recorder.answers)
    value = answered(
        news,
        ask(
            {"type": "predicate", "name": "is_sport", "instructions": "?"},
            {"type": "score", "instructions": "?", "levels": [{"label": label} for label in NEWS]},
            choice(*NEWS),
        ),
    )
    predicate, score, whole = value["answers"]
    every = {entry["value"]: entry["probability"] for entry in whole["probabilities"]}
    assert predicate == {
        "type": "predicate",
        "name": "is_sport",
        "probability": pytest.approx(every["sport"]),
    }
    assert [entry["value"] for entry in score["probabilities"]] == [5, 4, 3, 2, 1]
    wanted = sum(every[label] * worth for label, worth in zip(NEWS, [5, 4, 3, 2, 1], strict=True))
    assert score["score"] == pytest.approx(wanted)
    assert [record.model for record in news.recorder.answers[before:]] == ["cascade"]


def test_questions_of_several_models_are_answered_in_order(news: Deciding) -> None:
    """Each by its own, and the headers tell all of them."""
    reply = decide(
        news, ask(choice(*NEWS, name="by_small"), choice(*NEWS), choice("tech", "sport", name="x"))
    )
    standings = reply.json()["sluice"]["answers"]
    assert [standing["model"] for standing in standings] == ["fake-small", "cascade", "cascade"]
    assert standings[0]["reason"] == "a variant by name answered, and no policy"
    variants = [standing["variant"] for standing in standings]
    assert reply.headers["x-sluice-variant"] == ",".join(dict.fromkeys(variants))
    assert reply.headers["x-sluice-policy"] == standings[1]["policy_version"]


def test_headers_tell_what_only_we_know(news: Deciding) -> None:
    """Request id, variant, whether it escalated, policy: for clients that show headers."""
    seen = set()
    for number in range(20):
        reply = decide(
            news, ask(choice(*NEWS), text=f"tech: story {number}"), **{"x-request-id": f"r{number}"}
        )
        value = reply.json()["sluice"]
        [standing] = value["answers"]
        assert reply.headers["x-request-id"] == value["request_id"] == f"r{number}"
        assert reply.headers["x-sluice-variant"] == standing["variant"]
        assert reply.headers["x-sluice-escalated"] == str(standing["escalated"]).lower()
        assert reply.headers["x-sluice-policy"] == standing["policy_version"]
        seen.add(standing["escalated"])
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (ask(choice("rain", "sun")), 400, "question_not_served", "questions[0]"),
        (ask(choice(*NEWS), choice("rain", "sun", name="w")), 400, "question_not_served", "questions[1]"),
        (ask({"type": "predicate", "instructions": "?"}), 400, "question_not_served", "questions[0]"),
        (ask({"type": "locate", "instructions": "?"}), 400, "question_not_served", "questions[0]"),
        (ask(choice("sport")), 400, None, "questions[0].choices"),
        (ask(), 400, None, "questions"),
        (ask(choice(*NEWS), text=[{"role": "user", "content": [{"type": "input_file"}]}]), 400,
         "input_not_read", "input[0].content[0].type"),
        (ask(choice(*NEWS), text="x" * 50_001), 413, "request_too_large", None),
        (ask(choice(*NEWS), deadline_ms=0.0001, model="fake-large"), 504, "deadline_exceeded", None),
    ],
)  # fmt: skip
def test_refusals_are_error_objects(
    news: Deciding, body: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    """A message for people, code and param for programs, in OpenAI's form."""
    reply = decide(news, body)
    assert reply.status_code == status
    error = DecisionError.model_validate(reply.json()).error
    assert (error.code, error.param) == (code, param)
    assert error.message
    assert reply.headers.get("x-should-retry") == ("false" if status == 504 else None)


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/systemone"])
def test_what_is_refused_unread_has_the_form_too(news: Deciding, path: str) -> None:
    """Another method, no JSON, a body too large, a type that is not read, a wrong priority."""
    url = news.url + path
    replies = [
        httpx.get(url),
        httpx.post(url, content=b"no"),
        httpx.post(url, content=b"x" * (1 << 20 | 1)),
        httpx.post(url, content=b"x", headers={"content-type": "application/xml"}),
        httpx.post(url, json=ask(choice(*NEWS)) | {"state": "x"}, headers={"x-sluice-priority": "soon"}),
    ]
    assert [reply.status_code for reply in replies] == [405, 400, 413, 415, 400]
    for reply in replies:
        DecisionError.model_validate(reply.json())


def test_a_path_with_slashes_too_many_is_answered_by_way_of_the_shell(news: Deciding) -> None:
    """As on every other path."""
    assert httpx.post(f"{news.url}//v1/decisions/", json=ask(choice(*NEWS))).status_code == 200


def test_hosts_can_tell_these_routes_from_others() -> None:
    """They are hot."""
    for path in ("/v1/decisions", "/v1/systemone"):
        assert HotRoutes.takes({"type": "http", "method": "POST", "path": path})


def test_the_other_form_has_the_same_answers(news: Deciding) -> None:
    """System One: by name, a noul for a predicate."""
    questions: dict[str, Any] = {
        "topic": {"type": "choice", "instructions": "?", "criteria": dict.fromkeys(NEWS)},
        "is_sport": {"type": "noul", "instructions": "?"},
    }
    body: dict[str, Any] = {"model": "jev", "state": SURE, "questions": questions}
    reply = httpx.post(f"{news.url}/v1/systemone", json=body)
    assert reply.status_code == 200, reply.text
    value = reply.json()
    SystemOneReply.model_validate(value)
    [whole] = answered(news, ask(choice(*NEWS)))["answers"]
    assert value["answers"]["topic"]["choice"] == whole["choice"]
    assert value["answers"]["is_sport"]["noul"] == pytest.approx(
        value["answers"]["topic"]["probabilities"]["sport"]
    )
    body["questions"] = {"weather": questions["topic"] | {"criteria": ["rain", "sun"]}}
    refused = httpx.post(f"{news.url}/v1/systemone", json=body)
    assert DecisionError.model_validate(refused.json()).error.param == "questions.weather"


def test_each_question_counts_for_a_key(news: Deciding, fake_folder: FakeFolder, tmp_path: Path) -> None:
    """Three questions take three of the rate; beyond it, and beyond a day's, clients are told so."""
    store = open_keys(str(tmp_path))
    with deciding(fake_folder) as running:
        fast, _ = store.create("fast", ("infer",), KeyLimits(rate_per_s=0.1, burst=4))
        daily, _ = store.create("daily", ("infer",), KeyLimits(requests_per_day=1))
        admin, book = store.create("ops", ("admin",), KeyLimits())
        running.gate.take(book)
        three = ask(choice(*NEWS), choice(*NEWS), choice("tech", "sport"))
        assert decide(running, three).status_code == 401
        assert decide(running, three).json()["error"]["code"] == "invalid_api_key"
        assert decide(running, three, authorization=f"Bearer {admin}").status_code == 403
        replies = [decide(running, three, authorization=f"Bearer {fast}") for _ in range(2)]
        assert [reply.status_code for reply in replies] == [200, 429]
        assert replies[1].json()["error"]["code"] == "rate_limit_exceeded"
        assert int(replies[1].headers["retry-after"]) >= 1
        spent = decide(running, three, authorization=f"Bearer {daily}")
        assert (spent.json()["error"]["code"], spent.headers["x-should-retry"]) == (
            "insufficient_quota",
            "false",
        )
        assert running.recorder.limits == [("fast", "rate", 3), ("daily", "requests_per_day", 3)]


def test_probabilities_of_a_choice_sum_to_one(news: Deciding) -> None:
    """Whatever is offered."""
    for offered in (NEWS, NEWS[:2], NEWS[1:4]):
        [answer] = answered(news, ask(choice(*offered)))["answers"]
        assert np.isclose(sum(entry["probability"] for entry in answer["probabilities"]), 1)
