"""The clients that applications have, unchanged but for their URL: the SDK `openai`, and LangChain."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai.decisions import Choice, OpenAIDecisions, Predicate, Score
from openai.types.decision import Decision

from serve.access.key_store import open_keys
from serve.access.keys import KeyLimits
from serve.settings.gateway import Settings
from serve.wire.decisions.schemas import Extra
from tests.serve.http.decisions.parts import NEWS, SURE, Deciding, ask, certified, choice, deciding
from tests.serve.parts import FakeFolder

PAGE = (Path(__file__).parents[4] / "docs" / "decisions-endpoint.md").read_text("utf-8")
SETTINGS: dict[str, Any] = {
    "models": {"cascade": {"yes_label": "sport", "levels": list(NEWS)}},
    "questions": {name: {"model": "cascade"} for name in ("topic", "is_sport", "mood")},
}
QUESTIONS: list[Any] = [
    choice(*NEWS, name="topic"),
    {"type": "predicate", "name": "is_sport", "instructions": "Is it about sport?"},
    {"type": "score", "name": "mood", "instructions": "?", "levels": [{"label": f"l{n}"} for n in range(5)]},
]


@pytest.fixture(scope="module")
def news(fake_folder: FakeFolder) -> Iterator[Deciding]:
    """A gateway for them."""
    with deciding(fake_folder, policy=certified(), settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def client(news: Deciding) -> Iterator[openai.OpenAI]:
    """The SDK, which tries nothing twice."""
    with openai.OpenAI(base_url=f"{news.url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


def test_the_sdk_reads_its_own_types(client: openai.OpenAI) -> None:
    """Each kind of answer is the SDK's, strictly valid, in the order of the questions."""
    decision = client.decisions.create(model="gpt-6-luna", input=SURE, questions=QUESTIONS)
    Decision.model_validate(decision.model_dump(), strict=True)
    topic, is_sport, mood = decision.answers
    assert (topic.type, is_sport.type, mood.type) == ("choice", "predicate", "score")
    assert topic.choice == "sport"
    assert is_sport.probability == pytest.approx(topic.confidence)
    assert mood.score == pytest.approx(sum(p.value * p.probability for p in mood.probabilities))
    assert [p.label for p in mood.probabilities] == [f"l{n}" for n in range(5)]
    assert (decision.model, decision.usage.total_tokens) == ("gpt-6-luna", 0)
    assert decision.sluice["answers"][0]["certified"] is True


def test_the_sdk_shows_what_only_we_know(client: openai.OpenAI) -> None:
    """Headers of the raw response, and the request's id."""
    raw = client.decisions.with_raw_response.create(
        model="cascade", input=[{"role": "user", "content": SURE}], questions=QUESTIONS[:1],
        extra_headers={"x-request-id": "mine"},
    )  # fmt: skip
    decision = raw.parse()
    assert decision._request_id == raw.headers["x-request-id"] == "mine"
    assert raw.headers["x-sluice-escalated"] in {"true", "false"}
    assert raw.headers["x-sluice-variant"].startswith("fake-")
    assert raw.headers["x-sluice-policy"] == decision.sluice["answers"][0]["policy_version"]


def test_the_sdk_asks_from_coroutines(news: Deciding) -> None:
    """Many at a time over its pool."""

    async def many() -> list[Decision]:
        async with openai.AsyncOpenAI(base_url=f"{news.url}/v1", api_key="any") as opened:
            return await asyncio.gather(
                *(
                    opened.decisions.create(model="m", input=f"tech: story {n}", questions=QUESTIONS)
                    for n in range(20)
                )
            )

    assert [len(found.answers) for found in asyncio.run(many())] == [3] * 20


def test_the_sdk_raises_typed_errors(client: openai.OpenAI, fake_folder: FakeFolder, tmp_path: Path) -> None:
    """By status, with code, param and type from the error object."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.decisions.create(model="m", input="x", questions=[choice("rain", "sun")])
    assert (refused.value.code, refused.value.param) == ("question_not_served", "questions[0]")
    assert refused.value.type == "invalid_request_error"
    store = open_keys(str(tmp_path))
    with deciding(fake_folder) as running:
        key, book = store.create("web", ("infer",), KeyLimits(requests_per_day=2))
        running.gate.take(book)
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="wrong", max_retries=0) as stranger:
            with pytest.raises(openai.AuthenticationError):
                stranger.decisions.create(**ask(QUESTIONS[0]))
            known = stranger.with_options(api_key=key, max_retries=2)
            with pytest.raises(openai.RateLimitError) as spent:
                known.decisions.create(**ask(*[QUESTIONS[0]] * 3))
    assert spent.value.code == "insufficient_quota"
    assert running.recorder.limits == [("web", "requests_per_day", 3)]


def test_langchain_works_as_it_is(news: Deciding) -> None:
    """Mappings by name, from text and from messages of several roles, awaited or not."""
    decisions = OpenAIDecisions(model="gpt-6-luna", base_url=f"{news.url}/v1", api_key="any")
    questions: dict[str, Any] = {
        "topic": Choice(instructions="?", choices=dict.fromkeys(NEWS)),
        "is_sport": Predicate(instructions="?"),
        "mood": Score(instructions="?", levels=[f"l{n}" for n in range(5)]),
    }
    found = decisions.invoke({"input": SURE, "questions": questions})
    assert found.choices["topic"].choice == "sport"
    assert found.predicates["is_sport"].probability == pytest.approx(found.choices["topic"].confidence)
    assert 0 <= found.scores["mood"].score <= 4
    assert (found.model, found.usage.input_tokens, bool(found.request_id)) == ("gpt-6-luna", 0, True)
    talk = [HumanMessage("hello"), AIMessage("hello to you")]
    awaited = asyncio.run(decisions.ainvoke({"input": talk, "questions": questions}))
    assert set(awaited.answers) == set(questions)


def block(kind: str) -> str:
    """Return the code block of that kind on the page."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_pages_program_runs(news: Deciding, capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, at another address."""
    exec(block("python").replace("http://127.0.0.1:8000", news.url), {})
    assert re.fullmatch(r"(sport|business|politics) 0?\.?\d+\n", capsys.readouterr().out)


def test_the_pages_command_is_answered(news: Deciding) -> None:
    """The body that it sends, and the object that it shows in the reply."""
    found = re.search(r"-d '(.*)'", block("console"), re.DOTALL)
    assert found is not None
    reply = httpx.post(f"{news.url}/v1/decisions", content=found.group(1).encode())
    assert reply.status_code == 200, reply.text
    shown = Extra.model_validate_json(block("json"))
    assert set(reply.json()["sluice"]["answers"][0]) <= set(shown.answers[0].model_dump())


def test_the_pages_settings_are_settings() -> None:
    """Every name is known."""
    settings = Settings.model_validate({"fake": {}} | yaml.safe_load(block("yaml")))
    assert settings.decisions.questions["is_sport"].yes_label == "sport"
    assert settings.upstream is not None
