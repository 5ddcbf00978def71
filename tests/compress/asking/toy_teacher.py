"""A teacher behind HTTP that knows the toy texts: it answers by their words, and fails as a test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contract.probabilities import softmax
from tests.compress.conftest import WORDS
from tests.support.known_model import KnownModel, Request

LABELS = tuple(sorted(WORDS))
REFUSED = "a text that nobody answers"


class ToyTeacher(KnownModel):
    """Says how many words of each label a text has, the surer the shorter it is.

    Attributes:
        stuck_after: so many requests are answered, all later ones wait for `go_on`.
        stuck: set once one waits.
        go_on: to be set when they may be answered.
    """

    def __init__(self) -> None:
        super().__init__(LABELS)
        self.stuck_after: int | None = None
        self.stuck, self.go_on = threading.Event(), threading.Event()

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return what it says [N, 3]."""
        found = []
        for words in map(str.split, texts):
            counts = [sum(word in WORDS[label] for word in words) for label in LABELS]
            found.append(np.array(counts) * (1.0 + 20.0 / len(words)))
        return softmax(np.array(found, dtype=np.float64))

    async def _answer(self, asked: Request) -> tuple[int, Mapping[str, str], bytes]:
        if self.stuck_after is not None and len(self.asked) > self.stuck_after:
            self.stuck.set()
            await asyncio.to_thread(self.go_on.wait, 120)
        if asked.body.get("input") == REFUSED:
            return 200, {}, b'{"answers": [{"type": "refusal"}]}'
        return await super()._answer(asked)


def remote(url: str, **changes: Any) -> dict[str, Any]:
    """Return the part of a recipe that asks it, at half a cent."""
    told = {
        "form": "decisions", "url": url if changes.get("form") == "oip" else f"{url}/v1", "model": "toy",
        "instructions": "What is it about?", "labels": list(LABELS), "usd_per_call": 0.005, "max_usd": 10,
        "timeout_s": 10, "max_concurrency": 4,
    }  # fmt: skip
    return told | changes
