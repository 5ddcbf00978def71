"""A decision endpoint: one `choice` question over the labels, POST URL/decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from contract.errors import InputError
from contract.remote import RemoteModel
from runtime.remote.forms.said import (
    Probabilities,
    Said,
    data_url,
    declined,
    finite,
    index_of,
    led_by,
    spread,
    unreadable,
)

QUESTION = "label"
MOST_CHOICES = 255


class DecisionsForm:
    """Asks one text at a time which of the labels it is."""

    path = "/decisions"
    batch = 1

    def __init__(self, model: RemoteModel, labels: tuple[str, ...]) -> None:
        if len(labels) > MOST_CHOICES:
            raise InputError(
                f"a decision endpoint takes {MOST_CHOICES} choices, and there are {len(labels)} labels",
                hint="form: chat",
            )
        self._model = model
        self._names = model.names(labels)
        choices: list[dict[str, str]] = []
        for name, description in zip(self._names, model.descriptions(labels), strict=True):
            choices.append({"value": name} | ({} if description is None else {"description": description}))
        self._question = {
            "type": "choice", "name": QUESTION, "instructions": model.instructions, "choices": choices
        }  # fmt: skip

    def body(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the body for one text."""
        (text,) = texts
        asked: Any = text
        if self._model.inputs == "image":
            asked = [{"role": "user", "content": [{"type": "input_image", "image_url": data_url(text)}]}]
        return {"model": self._model.model, "input": asked, "questions": [self._question]}

    def read(self, reply: Any, n: int) -> Said:  # noqa: ARG002 - one
        """Return what it says; see runtime.remote.forms.said.Form."""
        answer = self._answer(reply)
        label = index_of(answer.get("choice"), self._names)
        found = self._probabilities(label, answer)
        return Said(np.array([label]), None if found is None else found[None, :])

    def _answer(self, reply: Any) -> dict[str, Any]:
        answers = reply.get("answers") if isinstance(reply, dict) else None
        if not isinstance(answers, list) or len(answers) != 1 or not isinstance(answers[0], dict):
            raise unreadable("`answers` is to hold one answer")
        answer: dict[str, Any] = answers[0]
        if answer.get("type") == "refusal":
            raise declined("it refuses to answer")
        if answer.get("type", "choice") != "choice":
            raise unreadable("an answer of another type to a choice")
        return answer

    def _probabilities(self, label: int, answer: dict[str, Any]) -> Probabilities | None:
        """Return them as told; a choice that is not listed has none."""
        listed = answer.get("probabilities")
        if not listed:
            confidence = answer.get("confidence")
            return None if confidence is None else spread(label, confidence, len(self._names))
        if not isinstance(listed, list):
            raise unreadable("`probabilities` is a list")
        found = np.zeros(len(self._names), dtype=np.float64)
        for one in listed:
            value = one.get("value") if isinstance(one, dict) else None
            share = finite(one.get("probability")) if isinstance(one, dict) else None
            if share is None:
                raise unreadable("each of `probabilities` has a `value` and a number as `probability`")
            if isinstance(value, str) and value in self._names:
                found[self._names.index(value)] = share
        return led_by(label, found)
