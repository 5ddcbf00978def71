"""The stand-in's decision endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.fake_family import LABELS, write_fake_family
from serve.standin.server import Running, serving
from serve.standin.settings import StandInSettings

CHOICES = [{"value": label} for label in LABELS]
TEXT = "sport: story 7"


@pytest.fixture(scope="module", params=[LABELS, ("no", "yes")], ids=["topics", "yes-no"])
def standin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return a stand-in with five labels, and one with two."""
    folder: Path = tmp_path_factory.mktemp("family")
    write_fake_family(folder, labels=request.param, delay_ms=0.0, rows=60)
    with serving(folder, StandInSettings(port=0, usd_per_1k=0.03)) as running:
        yield running


def ask(standin: Running, *questions: dict[str, Any], text: Any = TEXT) -> httpx.Response:
    """Ask questions about a text."""
    body = {"model": "big", "input": text, "questions": list(questions)}
    return httpx.post(f"{standin.url}/v1/decisions", json=body)


def test_each_question_is_answered_over_what_it_offers_or_refused(standin: Running) -> None:
    """Choices are renormalised over their values, predicates need two labels, strangers are refused."""
    before = standin.state.spending.questions
    reply = ask(
        standin,
        {"type": "choice", "name": "t", "instructions": "Which?", "choices": CHOICES[::-1]},
        {"type": "choice", "instructions": "Which?", "choices": [{"value": "yes"}, {"value": "no"}]},
        {"type": "predicate", "instructions": "Is it?"},
        {"type": "choice", "instructions": "Which?", "choices": [{"value": "x"}, {"value": True}]},
    ).json()

    kinds = [answer["type"] for answer in reply["answers"]]
    five = standin.state.answerer.labels == LABELS
    assert kinds == (["choice", *["refusal"] * 3] if five else ["refusal", "choice", "predicate", "refusal"])
    answered = reply["answers"][0 if five else 1]
    assert sum(one["probability"] for one in answered["probabilities"]) == pytest.approx(1)
    assert reply["usage"]["total_tokens"] > 0
    assert standin.state.spending.questions - before == 4


def test_a_message_is_read_as_its_text(standin: Running) -> None:
    """Messages give the same answer as the text that they hold."""
    question = {
        "type": "choice",
        "instructions": "?",
        "choices": [{"value": v} for v in standin.state.answerer.labels],
    }
    plain = ask(standin, question).json()
    message = [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]
    assert ask(standin, question, text=message).json()["answers"] == plain["answers"]


def test_images_and_bodies_that_are_none_are_refused(standin: Running) -> None:
    """What it cannot read gets 400 with OpenAI's error."""
    image = [
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}
    ]
    question = {"type": "predicate", "instructions": "Is it?"}
    assert ask(standin, question, text=image).json()["error"]["message"] == "this model reads texts"
    assert ask(standin).status_code == 400
