"""The line per request: who asked for what, who answered, how it ended and how long it took."""

from __future__ import annotations

import logging
import random
from typing import Any

from serve.settings.logs import LogSettings
from serve.telemetry.logs import FIELDS
from serve.types.current import Observed

log = logging.getLogger("serve.requests")


class RequestLog:
    """Writes the lines that the settings ask for."""

    def __init__(self, settings: LogSettings) -> None:
        self._share = settings.requests_share if settings.requests == "all" else 0.0

    def write(
        self,
        observed: Observed,
        status: int | str,
        seconds: float,
        *,
        failed: bool,
        trace_id: int | None = None,
    ) -> None:
        """Write the line of one request, unless it is an answered one that was not drawn.

        Args:
            observed: what was noted of it.
            status: of its reply: HTTP's number or gRPC's name.
            seconds: until the reply was handed over.
            failed: whether it got no answer.
            trace_id: of its trace, sampled or not.
        """
        if not failed and (self._share == 0.0 or (self._share < 1.0 and random.random() >= self._share)):
            return
        fields: dict[str, Any] = {
            "trace_id": None if trace_id is None else f"{trace_id:032x}",
            "key": observed.caller or None,
            "family": observed.family or None,
            "model": observed.model or None,
            "variant": ",".join(sorted(set(observed.variants))) or None,
            "texts": len(observed.variants) or None,
            "status": status,
            "latency_ms": round(seconds * 1e3, 3),
        }
        given = {name: value for name, value in fields.items() if value is not None}
        log.log(logging.WARNING if failed else logging.INFO, "request", extra={FIELDS: given})
