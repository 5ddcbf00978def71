"""What a decision is about, as one text and images.

The rule: the texts of user messages, and of their parts, in order, with a blank line between two. Where
anybody else speaks or a tool is called, each item stands after who it is from: `assistant: ...`,
`call: name(arguments)`, `output: ...`. What is JSON is read as JSON, without blanks. An image keeps its place
among images and leaves none in the text.
"""

from __future__ import annotations

from typing import Any

import orjson

from contract.errors import RequestError, TooLarge
from serve.settings.limits import RequestLimits
from serve.wire.decisions.asked import InvalidRequest

_USER = "user"
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""What a part of a message says its words under."""
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_JSON = "input_json"
_IMAGE = "input_image"
_DATA = "data:"


class Unread(InvalidRequest):
    """An input that may be right, and that nothing here reads."""


def read_input(given: Any, limits: RequestLimits) -> tuple[str, tuple[str, ...], RequestError | None]:
    """Return the text, the images, and why nothing here reads the input, if so.

    Raises:
        InvalidRequest: neither a text nor a list of one or more messages, or a message against its form.
    """
    if type(given) is str:
        return given, (), too_long(given, "input", limits)
    if type(given) is not list or not given:
        raise InvalidRequest("input must be a text or a list of one or more messages", "input")
    reader = _Reader()
    for position, item in enumerate(given):
        reader.read(item, f"input[{position}]")
    text = reader.text()
    images = tuple(reader.images)
    return text, images, reader.unread or too_long(text, "input", limits)


def read_state(given: Any, limits: RequestLimits) -> tuple[str, RequestError | None]:
    """Return the text of a System One state: itself, or the JSON of what is structured.

    Raises:
        InvalidRequest: no text, object or list.
    """
    if type(given) is str:
        return given, too_long(given, "state", limits)
    if type(given) is not dict and type(given) is not list:
        raise InvalidRequest("state must be a text, an object or a list", "state")
    try:
        text = orjson.dumps(given).decode()
    except orjson.JSONEncodeError:
        return "", Unread("state is nested too deeply to be read here", "state", "input_not_read")
    return text, too_long(text, "state", limits)


def too_long(text: str, field: str, limits: RequestLimits) -> RequestError | None:
    """Return what speaks against the length of a text; None where nothing does."""
    if len(text) <= limits.max_characters:
        return None
    return TooLarge(f"{field} has {len(text)} characters; at most {limits.max_characters}")


class _Reader:
    """Collects what the items of an input say."""

    def __init__(self) -> None:
        self.images: list[str] = []
        self.unread: Unread | None = None
        self._said: list[tuple[str, str]] = []

    def text(self) -> str:
        """Return what was said, by the rule."""
        if all(who == _USER for who, _ in self._said):
            return "\n\n".join(words for _, words in self._said)
        return "\n\n".join(f"{who}: {words}" for who, words in self._said)

    def read(self, item: Any, where: str) -> None:
        """Read a message, a tool's call or its output. Raises InvalidRequest."""
        if type(item) is not dict:
            raise InvalidRequest(f"{where} must be an object", where)
        kind = item.get("type", "message")
        if type(kind) is not str:
            raise InvalidRequest(f"{where}.type must be a text", f"{where}.type")
        if kind == "message":
            who = _text(item, "role", where)
            self._add(who, item.get("content"), f"{where}.content")
        elif kind in _CALLS:
            call = f"{_text(item, 'name', where)}({_text(item, _CALLS[kind], where)})"
            self._said.append(("call", call))
        elif kind in _OUTPUTS:
            self._add("output", item.get("output"), f"{where}.output")
        else:
            self._leave(f"{where}.type {kind[:40]!r} is not read here", f"{where}.type")

    def _add(self, who: str, content: Any, where: str) -> None:
        if type(content) is str:
            self._said.append((who, content))
            return
        if type(content) is not list:
            raise InvalidRequest(f"{where} must be a text or a list of parts", where)
        words = []
        for position, part in enumerate(content):
            at = f"{where}[{position}]"
            if type(part) is not dict:
                raise InvalidRequest(f"{at} must be an object", at)
            kind = part.get("type")
            if type(kind) is str and kind in _TEXTS:
                words.append(_text(part, _TEXTS[kind], at))
            elif kind == _JSON:
                try:
                    words.append(orjson.dumps(part.get("data")).decode())
                except orjson.JSONEncodeError:
                    self._leave(f"{at}.data is nested too deeply to be read here", f"{at}.data")
            elif kind == _IMAGE:
                self._see(part.get("image_url"), at)
            else:
                self._leave(f"{at}.type {str(kind)[:40]!r} is not read here", f"{at}.type")
        if words:
            self._said.append((who, "\n\n".join(words)))

    def _see(self, url: Any, where: str) -> None:
        if type(url) is str and url.startswith(_DATA):
            self.images.append(url)
        else:
            self._leave(f"{where}.image_url must be a data URL to be read here", f"{where}.image_url")

    def _leave(self, why: str, param: str) -> None:
        if self.unread is None:
            self.unread = Unread(why, param, "input_not_read")


def _text(holder: dict[str, Any], name: str, where: str) -> str:
    found = holder.get(name)
    if type(found) is not str:
        raise InvalidRequest(f"{where}.{name} must be a text", f"{where}.{name}")
    return found
