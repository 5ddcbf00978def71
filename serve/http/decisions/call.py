"""A decision request on its way: what is asked of whom, and what is here."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from serve.access.meter import Visit
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.upstream.client import Headers
from serve.wire.decisions.asked import Asked
from serve.wire.decisions.forms import Form
from serve.wire.decisions.matching import Match, Unserved

Waiting = dict[str, Coroutine[Any, Any, ClassifyResult]]
"""What finds the results that are not here yet, by model."""


@dataclass(slots=True, eq=False)
class Call:
    """A request on its way.

    Attributes:
        form: that it came in, and that is answered in.
        asked: what it asks.
        body: as it was sent, unpacked.
        pairs: ASGI's headers.
        identity: the request's id.
        arrived_at: clock second of its head.
        caller: name of the key; empty without keys.
        matches: who answers each question.
        requests: what each model is asked; all questions of one model have one result from it.
        left: positions of the questions that go upstream.
        results: by model, as far as they are here.
        visit: the key's part, where it has limits.
        paid: whether the upstream takes its price, whatever comes of the request.
    """

    form: Form
    asked: Asked
    body: bytes
    pairs: Headers
    identity: bytes
    arrived_at: float
    caller: str
    matches: list[Match | Unserved]
    requests: dict[str, ClassifyRequest]
    left: list[int]
    results: dict[str, ClassifyResult] = field(default_factory=dict)
    visit: Visit | None = None
    paid: bool = False

    def end(self, *, answered: bool) -> None:
        """Note the end of the key's request: one that was paid for counts; a second end changes nothing."""
        if self.visit is not None:
            self.visit.end(answered=answered or self.paid)


def give_up(waiting: Waiting) -> None:
    """Let go of what will not be awaited."""
    for found in waiting.values():
        found.close()
