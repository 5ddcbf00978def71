"""A chat model held to the labels by a JSON schema or a tool: POST URL/chat/completions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from contract.remote import RemoteModel
from runtime.remote.forms.said import (
    Probabilities,
    Said,
    data_url,
    declined,
    index_of,
    led_by,
    not_offered,
    unreadable,
)
from runtime.remote.forms.tokens import label_probabilities, tokens_told

KEY = "label"
NAME = "answer"
_QUOTES = " \t\r\n\"'`*.«»“”"
_BEFORE = re.compile(rf'"{KEY}"\s*:\s*"')
"""What stands before a label in a JSON object; within a string its quotation marks are escaped."""


class ChatForm:
    """Asks one text at a time; reads a label and, where they are told, the log-probabilities behind it."""

    path = "/chat/completions"
    batch = 1

    def __init__(self, model: RemoteModel, labels: tuple[str, ...]) -> None:
        self._model = model
        self._names = model.names(labels)
        self._system = _system(model, self._names, model.descriptions(labels))

    def body(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the body for one text."""
        (text,) = texts
        model, options = self._model, self._model.chat
        asked: Any = text
        if model.inputs == "image":
            asked = [{"type": "image_url", "image_url": {"url": data_url(text)}}]
        temperature = options.temperature
        if temperature is None:
            temperature = 0.0 if model.repeats == 1 else 1.0
        body: dict[str, Any] = {
            "model": model.model,
            "messages": [{"role": "system", "content": self._system}, {"role": "user", "content": asked}],
            "temperature": temperature,
        }
        schema = {
            "type": "object",
            "properties": {KEY: {"type": "string", "enum": list(self._names)}},
            "required": [KEY],
            "additionalProperties": False,
        }
        if options.constrain == "schema":
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": NAME, "strict": True, "schema": schema},
            }
        elif options.constrain == "tool":
            function = {"name": NAME, "description": "Gives the answer.", "parameters": schema}
            body["tools"] = [{"type": "function", "function": function}]
            body["tool_choice"] = {"type": "function", "function": {"name": NAME}}
        if options.logprobs:
            body |= {"logprobs": True, "top_logprobs": options.top_logprobs}
        return {key: value for key, value in (body | options.extra).items() if value is not None}

    def read(self, reply: Any, n: int) -> Said:  # noqa: ARG002 - one
        """Return what it says; see runtime.remote.forms.said.Form."""
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise unreadable("there are no `choices`")
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise unreadable("the choice has no `message`")
        if message.get("refusal"):
            raise declined("it refuses to answer")
        content = message.get("content")
        text = content if isinstance(content, str) else ""
        label = self._label(message, text)
        found = self._probabilities(choices[0].get("logprobs"), text, label)
        return Said(np.array([label]), None if found is None else found[None, :])

    def _label(self, message: dict[str, Any], text: str) -> int:
        if self._model.chat.constrain == "tool":
            try:
                return index_of(_of_json(_arguments(message)), self._names)
            except ValueError:
                raise unreadable("the arguments of the tool are no JSON object") from None
        plain = text.strip(_QUOTES)
        if self._model.chat.constrain == "none" and plain in self._names:
            return self._names.index(plain)
        try:
            value = _of_json(text)
        except ValueError:
            if self._model.chat.constrain == "schema":
                raise unreadable("the content is no JSON object with a label") from None
            return self._by_heart(plain)
        return index_of(value, self._names)

    def _by_heart(self, text: str) -> int:
        """Return the one label that a text is but for upper and lower case."""
        same = [i for i, name in enumerate(self._names) if name.casefold() == text.casefold()]
        if len(same) != 1:
            raise not_offered(text)
        return same[0]

    def _probabilities(self, logprobs: Any, text: str, label: int) -> Probabilities | None:
        """Return probabilities by the tokens of the content; None where they are not told or do not fit."""
        tokens = tokens_told(logprobs)
        if tokens is None or "".join(token.text for token in tokens) != text:
            return None
        places = [found.end() for found in _BEFORE.finditer(text)]
        if len(places) > 1:
            return None
        for written in self._ways(quoted=bool(places)):
            start = places[0] if places else text.rfind(written[label])
            if start < 0 or not text.startswith(written[label], start):
                continue
            found = label_probabilities(tokens, start, written, label)
            if found is not None:
                return led_by(label, found)
        return None

    def _ways(self, *, quoted: bool) -> list[list[str]]:
        """Return how the labels may be written in the content: as JSON strings, or plainly."""
        if not quoted:
            return [list(self._names)]
        return [[json.dumps(n, ensure_ascii=ascii_)[1:] for n in self._names] for ascii_ in (False, True)]


def _system(model: RemoteModel, names: Sequence[str], descriptions: Sequence[str | None]) -> str:
    lines = [
        f"- {name}" if description is None else f"- {name}: {description}"
        for name, description in zip(names, descriptions, strict=True)
    ]
    how = {
        "schema": f"Answer with a JSON object such as {json.dumps({KEY: names[0]}, ensure_ascii=False)}.",
        "tool": f"Answer by calling {NAME}.",
        "none": "Answer with the label alone, written as above.",
    }[model.chat.constrain]
    return "\n".join([model.instructions, "", "The labels:", *lines, "", how])


def _arguments(message: dict[str, Any]) -> Any:
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls or not isinstance(calls[0], dict):
        raise declined("it does not call the tool")
    function = calls[0].get("function")
    return function.get("arguments") if isinstance(function, dict) else None


def _of_json(text: Any) -> Any:
    """Return the label in a JSON object, which some models put between fences. Raises ValueError."""
    if not isinstance(text, str):
        raise unreadable("the arguments of the tool are no JSON text")
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError("no JSON object")
    try:
        value = json.loads(text[begin : end + 1])
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict) or KEY not in value:
        raise unreadable(f"the JSON object has no `{KEY}`")
    return value[KEY]
