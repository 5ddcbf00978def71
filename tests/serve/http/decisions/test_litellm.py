"""LiteLLM, unchanged but for its URL. It is slow to import, so it is imported here alone."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
import pytest

from tests.serve.http.decisions.parts import NEWS, SURE, choice, deciding
from tests.serve.parts import FakeFolder

SETTINGS = {"models": {"cascade": {"yes_label": "sport"}}, "questions": {"is_sport": {"model": "cascade"}}}


def test_litellm_works_as_it_is_in_both_forms(fake_folder: FakeFolder) -> None:
    """Its OpenAI provider, awaited or not, and its System One provider; refusals are its own exceptions."""
    questions: list[Any] = [
        choice(*NEWS, name="topic"),
        {"type": "predicate", "name": "is_sport", "instructions": "?"},
    ]
    with deciding(fake_folder, settings=SETTINGS) as running:
        of_openai: dict[str, Any] = {"model": "openai/gpt-6-luna", "api_base": running.url, "api_key": "any"}
        found: Any = litellm.decisions(input=SURE, questions=questions, **of_openai)
        awaited: Any = asyncio.run(litellm.adecisions(input=SURE, questions=questions, **of_openai))
        for reply in (found, awaited):
            topic, is_sport = reply.answers
            assert (topic.choice, topic.name) == ("sport", "topic")
            assert is_sport.probability == pytest.approx(topic.confidence)
        with pytest.raises(litellm.BadRequestError, match="not answered here"):
            litellm.decisions(input=SURE, questions=[choice("rain", "sun")], **of_openai)
        topic = {"type": "choice", "instructions": "?", "criteria": dict.fromkeys(NEWS, "x")}
        named: Any = litellm.systemone(
            model="typesafe/jev-latest", api_base=running.url, api_key="any", state={"text": SURE},
            questions={"topic": topic},
        )  # fmt: skip
        assert named.answers["topic"].choice in NEWS
