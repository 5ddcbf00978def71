"""The stand-in upstream, asked over HTTP as a large model's server is."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.fake import true_label
from runtime.fake_family import LABELS
from serve.standin.server import Running, serving
from serve.standin.settings import StandInSettings

TEXT = "sport: story 7"


def chat(**more: Any) -> dict[str, Any]:
    """Return a chat request whose answer is one of the family's labels."""
    schema = {"type": "object", "properties": {"topic": {"type": "string", "enum": list(LABELS)}}}
    return {
        "model": "any",
        "messages": [{"role": "system", "content": "Which topic?"}, {"role": "user", "content": TEXT}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        **more,
    }


def ask(url: str, body: dict[str, Any], **more: Any) -> httpx.Response:
    """Ask the chat path."""
    return httpx.post(f"{url}/v1/chat/completions", json=body, **more)


def test_a_json_schema_is_answered_with_the_familys_label(standin: Running) -> None:
    """The content is the schema's object with the label, and its tokens say how likely that is."""
    reply = ask(standin.url, chat(logprobs=True, top_logprobs=3)).json()

    choice = reply["choices"][0]
    assert json.loads(choice["message"]["content"]) == {"topic": true_label_of(TEXT)}
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    assert 0 < math.exp(sum(token["logprob"] for token in tokens)) <= 1
    assert reply["usage"]["completion_tokens"] == len(tokens)


def true_label_of(text: str) -> str:
    """Return what the family's teacher answers to an easy text."""
    return LABELS[true_label(text, LABELS)]


def test_a_tool_that_must_be_called_is_called_with_the_label(standin: Running) -> None:
    """A forced tool gets its arguments, and no content."""
    parameters = {"type": "object", "properties": {"topic": {"type": "string", "enum": ["sport", "tech"]}}}
    body = chat(
        tools=[{"type": "function", "function": {"name": "sort", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "sort"}},
    )
    del body["response_format"]

    message = ask(standin.url, body).json()["choices"][0]["message"]

    assert message["content"] is None
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"topic": "sport"}


def test_repeats_with_a_temperature_are_drawn_and_a_seed_draws_the_same(standin: Running) -> None:
    """Repeats of one call are drawn by their probabilities, and equal seeds give equal draws."""
    drawn = [
        [
            choice["message"]["content"]
            for choice in ask(standin.url, chat(n=40, temperature=2, seed=5)).json()["choices"]
        ]
        for _ in range(2)
    ]

    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 40


def test_spending_adds_up_to_the_price_of_the_questions(family: Path) -> None:
    """Each answered question is booked with its price and its tokens; a refused one is not."""
    with serving(family, StandInSettings(port=0, usd_per_1k=30.0)) as running:
        tokens = sum(ask(running.url, chat()).json()["usage"]["total_tokens"] for _ in range(3))
        refused = ask(running.url, {"messages": []})
        spent = httpx.get(f"{running.url}/spending").json()

    assert refused.status_code == 400
    assert spent["questions"] == 3
    assert spent["usd"] == pytest.approx(0.09)
    assert spent["prompt_tokens"] + spent["completion_tokens"] == tokens


def test_answers_take_the_delay_that_was_set(family: Path) -> None:
    """No answer comes before its delay has passed."""
    with serving(family, StandInSettings(port=0, delay_ms=120)) as running:
        began = time.perf_counter()
        ask(running.url, chat())
        took_s = time.perf_counter() - began

    assert took_s >= 0.12


def test_what_is_wrong_with_a_request_is_said_in_openais_form(standin: Running) -> None:
    """An open question, a stream and an unknown path are refused with error.message."""
    for body, word in (
        (chat(response_format=None), "closed set"),
        (chat(stream=True), "stream"),
        (chat(messages=[]), "user"),
    ):
        reply = ask(standin.url, body)
        assert reply.status_code == 400
        assert word in reply.json()["error"]["message"]
    assert httpx.get(f"{standin.url}/v1/nothing").json()["error"]["message"] == "Not Found"


def test_beyond_its_rate_it_refuses_with_retry_after(family: Path) -> None:
    """After its burst the next request gets 429, and is told when to come again."""
    with serving(family, StandInSettings(port=0, requests_per_s=0.5)) as running:
        first, second = ask(running.url, chat()), ask(running.url, chat())

    assert first.status_code == 429 or second.status_code == 429
    assert int(second.headers["retry-after"]) >= 1


def test_a_key_is_asked_for_where_one_is_set(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the key of the environment variable the answer is 401."""
    monkeypatch.setenv("STAND_IN_KEY", "secret")
    with serving(family, StandInSettings(port=0, api_key_env="STAND_IN_KEY")) as running:
        assert ask(running.url, chat()).status_code == 401
        assert ask(running.url, chat(), headers={"authorization": "Bearer secret"}).status_code == 200


def test_failures_come_by_lot(family: Path) -> None:
    """A stand-in that shall always fail answers 500."""
    with serving(family, StandInSettings(port=0, failing_share=1.0)) as running:
        assert ask(running.url, chat()).status_code == 500


def test_the_command_says_where_it_answers_and_ends_by_a_signal(family: Path) -> None:
    """`sluice stand-in` names its address, answers there, and SIGTERM ends it with 0."""
    command = [sys.executable, "-m", "sluicegate", "stand-in", str(family), "--port", "0", "--delay-ms", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        assert ask(url, chat(), timeout=30).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
