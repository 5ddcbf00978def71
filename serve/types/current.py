"""What the running task works on, for logs and traces: set where a request comes in, read anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

REQUEST_ID: ContextVar[bytes] = ContextVar("request_id", default=b"")
"""Id of the request that the running task works on; empty outside one."""

SPAN: ContextVar[Any] = ContextVar("span", default=None)
"""The OpenTelemetry span that the running task is in; None where nothing is traced."""


@dataclass(slots=True, eq=False)
class Observed:
    """What is noted of one request while it is answered, for its line in the log and its span."""

    model: str = ""
    variants: Sequence[str] = ()
    caller: str = ""
    outcome: str = ""
    family: str = ""


OBSERVED: ContextVar[Observed | None] = ContextVar("observed", default=None)
"""Set only where somebody wants to know."""
