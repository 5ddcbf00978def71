"""`POST /v1/chat/completions` as a closed question: what is offered, about which text, and the reply."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.errors import BadRequest
from serve.standin.pieces import written

_WORDS = re.compile(r"\w{1,4}|[^\w\s]")
MOST_ALTERNATIVES = 20
MOST_CHOICES = 128


@dataclass(frozen=True)
class Asked:
    """A closed question in a chat request.

    Attributes:
        text: of the last message of the user.
        labels: what can be answered.
        field: property of the answer's JSON object that holds it.
        tool: name of the function that must be called with it; empty where the answer is the content.
        temperature: 0: the likeliest label; above: drawn.
        n: answers wanted.
        seed: of the draw; None: the server's own.
        top: alternatives told at each token; None: no log-probabilities.
        prompt_tokens: about so many.
    """

    text: str
    labels: tuple[str, ...]
    field: str
    tool: str
    temperature: float
    n: int
    seed: int | None
    top: int | None
    prompt_tokens: int


def parse_chat(body: Mapping[str, Any]) -> Asked:
    """Return the closed question of a chat request.

    Its labels are those of the one `enum` in `response_format.json_schema`, or in the parameters of the
    function that the request wants to be called.

    Raises:
        BadRequest: no text, no such `enum`, or what only an open question needs.
    """
    if body.get("stream"):
        raise BadRequest("stream: a closed question is answered in one piece")
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("messages must be a list of messages")
    texts = [_text_of(message) for message in messages if message.get("role") == "user"]
    if not texts:
        raise BadRequest("messages hold none of the user's")
    tool, schema = _schema_of(body)
    enums = list(_enums(schema, ""))
    if len(enums) != 1:
        raise BadRequest(f"the JSON schema of the answer must hold one enum of texts, not {len(enums)}")
    field, labels = enums[0]
    said = " ".join(_text_of(message) for message in messages) + " ".join(labels)
    top = _whole(body, "top_logprobs", 0, MOST_ALTERNATIVES) if body.get("logprobs") else None
    temperature = body.get("temperature") or 0.0
    if type(temperature) not in (int, float) or not 0 <= temperature <= 2:
        raise BadRequest("temperature must be a number from 0 to 2")
    seed = body.get("seed")
    return Asked(
        text=texts[-1],
        labels=labels,
        field=field,
        tool=tool,
        temperature=float(temperature),
        n=_whole(body, "n", 1, MOST_CHOICES) or 1,
        seed=seed if type(seed) is int else None,
        top=top,
        prompt_tokens=token_count(said),
    )


def chat_reply(
    asked: Asked, probabilities: Sequence[float], chosen: Sequence[int], *, model: str, number: int, at_s: int
) -> dict[str, Any]:
    """Return the reply's JSON.

    Args:
        asked: what is answered.
        probabilities: [C] of its labels.
        chosen: [n] index of the label of each answer.
        model: as it calls itself.
        number: of the reply.
        at_s: Unix second.
    """
    choices, tokens = [], 0
    for index, label in enumerate(chosen):
        content, spelled = written(asked.field, asked.labels, probabilities, label, asked.top or 0)
        tokens += len(spelled)
        choices.append(_choice(asked, index, content, spelled, number))
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": at_s,
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": asked.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": asked.prompt_tokens + tokens,
        },
    }


def token_count(text: str) -> int:
    """Return about how many tokens a text has."""
    return len(_WORDS.findall(text))


def _choice(
    asked: Asked, index: int, content: str, spelled: list[dict[str, Any]], number: int
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    logprobs: dict[str, Any] | None = None
    if asked.tool:
        call = {"name": asked.tool, "arguments": content}
        message["content"] = None
        message["tool_calls"] = [{"id": f"call_{number}_{index}", "type": "function", "function": call}]
    elif asked.top is not None:
        logprobs = {"content": spelled, "refusal": None}
    finish = "tool_calls" if asked.tool else "stop"
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def _schema_of(body: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the name of the function to be called, empty where none is, and the schema of the answer."""
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = form.get("json_schema")
        return "", schema.get("schema") if isinstance(schema, dict) else None
    tools = [tool.get("function") for tool in body.get("tools") or () if isinstance(tool, dict)]
    functions = [function for function in tools if isinstance(function, dict)]
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        functions = [f for f in functions if f.get("name") == choice["function"].get("name")]
    elif choice != "required":
        functions = []
    if len(functions) != 1:
        raise BadRequest(
            "an answer from a closed set is asked for by response_format.json_schema, or by a tool_choice "
            "that names one of tools"
        )
    return str(functions[0].get("name")), functions[0].get("parameters")


def _enums(schema: Any, name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the name of each property that is one of some texts, and these."""
    if isinstance(schema, list):
        for item in schema:
            yield from _enums(item, name)
    if not isinstance(schema, dict):
        return
    offered = schema.get("enum")
    if isinstance(offered, list) and offered and all(isinstance(label, str) for label in offered):
        yield name, tuple(dict.fromkeys(offered))
    properties = schema.get("properties")
    for key, value in properties.items() if isinstance(properties, dict) else ():
        yield from _enums(value, key)


def _whole(body: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return least
    if type(value) is not int or not least <= value <= most:
        raise BadRequest(f"{name} must be an integer from {least} to {most}")
    return value
