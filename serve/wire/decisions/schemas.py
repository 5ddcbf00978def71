"""The decision endpoints as OpenAPI shows them, an example on every field. The routes parse by hand."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from serve.wire.schemas import Open, Wire

_CHOICE = {
    "type": "choice",
    "name": "topic",
    "instructions": "What is the article about?",
    "choices": [{"value": "sport"}, {"value": "business"}],
}


class InputPart(Open):
    """A text, or an image as a data URL."""

    type: Literal["input_text", "input_image"] = Field(examples=["input_text"])
    text: str | None = Field(default=None, examples=["Late goal wins the cup"])
    image_url: str | None = Field(default=None, examples=["data:image/png;base64,iVBORw0KGgo="])


class InputMessage(Open):
    """A message; all of them become one text, a blank line between two."""

    role: str = Field(examples=["user"])
    content: str | list[InputPart] = Field(examples=["Late goal wins the cup"])


class Choice(Open):
    """One of the values to choose from; a text and a boolean are distinct."""

    value: str | bool = Field(examples=["sport"])
    description: str | None = Field(default=None, examples=["Matches, clubs, athletes"])


class Level(Open):
    """One level of a score."""

    label: str = Field(examples=["calm"])
    description: str | None = Field(default=None, examples=["States facts"])


class QuestionBody(Open):
    """A question: a `choice` has choices, a `score` has levels from the lowest on, a `predicate` neither."""

    type: str = Field(description="`choice`, `predicate` or `score`", examples=["choice"])
    name: str | None = Field(
        default=None, description="Settles who answers, and comes back", examples=["topic"]
    )
    instructions: str = Field(
        description="For whoever reads them: the families here answer what they were trained for",
        examples=["What is the article about?"],
    )
    choices: list[Choice] | None = Field(
        default=None, min_length=2, max_length=255, examples=[[{"value": "sport"}, {"value": "business"}]]
    )
    levels: list[Level] | None = Field(
        default=None, min_length=2, max_length=255, examples=[[{"label": "calm"}, {"label": "angry"}]]
    )


class DecisionBody(Open):
    """Questions with closed answers about one input, in the form of OpenAI's Decisions API."""

    model: str = Field(
        description="A served model, or whatever the client has always said", examples=["cascade"]
    )
    input: str | list[InputMessage] = Field(examples=["Late goal wins the cup"])
    questions: list[QuestionBody] = Field(min_length=1, max_length=400, examples=[[_CHOICE]])
    deadline_ms: float | None = Field(
        default=None, gt=0, description="As for /v1/classify; not passed on", examples=[50.0]
    )
    sticky_key: str | None = Field(
        default=None, min_length=1, max_length=256, description="As there", examples=["user 42"]
    )


class Answer(Open):
    """The answer to one question, by its type; `refusal` where nobody answers it, here or upstream."""

    type: Literal["choice", "predicate", "score", "refusal"] = Field(examples=["choice"])
    name: str | None = Field(default=None, examples=["topic"])
    choice: str | bool | None = Field(default=None, description="Of a choice", examples=["sport"])
    confidence: float | None = Field(
        default=None, ge=0, le=1, description="Probability of the most probable value", examples=[0.98]
    )
    probability: float | None = Field(default=None, ge=0, le=1, description="Of a predicate", examples=[0.98])
    score: float | None = Field(default=None, description="Mean of the levels' values", examples=[1.7])
    probabilities: list[dict[str, Any]] | None = Field(
        default=None,
        description="In the order of the question: `value` and `probability`, of a score `label` too",
        examples=[[{"value": "sport", "probability": 0.98}, {"value": "business", "probability": 0.02}]],
    )


class Standing(Wire):
    """What only this gateway knows of an answer."""

    model: str = Field(description="Who was asked; `upstream` for what was passed on", examples=["cascade"])
    variant: str = Field(description="Who answered", examples=["linear"])
    escalated: bool = Field(default=False, examples=[False])
    degraded: bool = Field(default=False, examples=[False])
    abstained: bool | None = Field(
        default=None,
        description="Under a policy that abstains: whether the question is left to a person",
        examples=[False],
    )
    policy_version: str | None = Field(default=None, examples=["9f2c…"])
    certified: bool = Field(
        description="Whether the policy's certificate covers this answer's most probable value",
        examples=[True],
    )
    reason: str | None = Field(
        default=None, description="Why not", examples=["the policy in force has no certificate"]
    )


class Extra(Wire):
    """What clients of the form ignore."""

    request_id: str = Field(examples=["5f0c-1"])
    answers: list[Standing]


class Usage(Open):
    """Tokens that were billed: those of an upstream, none here."""

    input_tokens: int = Field(examples=[0])
    input_tokens_details: dict[str, int] = Field(examples=[{"cache_write_tokens": 0, "cached_tokens": 0}])
    output_tokens: int = Field(examples=[0])
    output_tokens_details: dict[str, int] = Field(examples=[{"reasoning_tokens": 0}])
    total_tokens: int = Field(examples=[0])


class DecisionReply(Open):
    """Answers in the order of the questions."""

    answers: list[Answer]
    model: str = Field(description="As asked", examples=["cascade"])
    usage: Usage
    sluice: Extra | None = Field(default=None, description="Absent where all was answered upstream")


class ErrorObject(Wire):
    """A refusal, as clients of OpenAI's API read it."""

    message: str = Field(examples=["questions[0] is not answered here: cascade has no label 'weather'"])
    type: str = Field(examples=["invalid_request_error"])
    code: str | None = Field(examples=["question_not_served"])
    param: str | None = Field(examples=["questions[0]"])


class DecisionError(Wire):
    """Every refusal of the decision endpoints."""

    error: ErrorObject


class SystemOneBody(Open):
    """Named questions about one state, in the System One form."""

    model: str = Field(default="", examples=["cascade"])
    state: Any = Field(
        description="A text, or an object or list: its JSON is read", examples=["Late goal wins the cup"]
    )
    questions: dict[str, dict[str, Any]] = Field(
        description="By name: `type` (`choice`, `noul`, `score`), `instructions`, `criteria`",
        examples=[
            {"topic": {"type": "choice", "instructions": "", "criteria": {"sport": None, "business": None}}}
        ],
    )


class SystemOneReply(Open):
    """Answers by the names of the questions."""

    answers: dict[str, dict[str, Any]] = Field(
        examples=[
            {
                "topic": {
                    "type": "choice",
                    "choice": "sport",
                    "probabilities": {"sport": 0.98, "business": 0.02},
                    "confidence": 0.98,
                }
            }
        ]
    )
    model: str = Field(examples=["cascade"])
    usage: dict[str, int] = Field(examples=[{"input_tokens": 0, "output_tokens": 0}])
    sluice: Extra | None = None
