"""What crosses the handle of a stage: asks, replies, and how they are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from contract.errors import NotReady, RequestError
from runtime.api import Logits
from serve.types.priority import DEFAULT_PRIORITY


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request asks, as it crosses the handle.

    Attributes:
        texts: [N].
        remaining_s: seconds until its deadline, if any.
        due_s: seconds until it must be answered to be worth a place in a queue, if any.
        priority: level, 1 the highest.
        request_id: of the request, for what the stage's replica logs.
        trace: W3C headers of the span that asks; None where it is not traced.
        number: by which it can be called off; 0: it cannot.
    """

    texts: list[str]
    remaining_s: float | None
    due_s: float | None = None
    priority: int = DEFAULT_PRIORITY
    request_id: bytes = b""
    trace: dict[str, str] | None = None
    number: int = 0


Reply = Logits | RequestError
Call = Callable[[list[Ask]], Awaitable[list[Reply]]]
Ping = Callable[[], Awaitable[bool]]
CallOff = Callable[[list[int]], Awaitable[None]]


class StageUnreachable(NotReady):
    """The process behind the handle is gone or not there yet; another replica may answer."""
