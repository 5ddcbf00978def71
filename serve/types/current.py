"""What the running task works on, for logs and traces: set where a request comes in, read anywhere."""

from __future__ import annotations

from contextvars import ContextVar

REQUEST_ID: ContextVar[bytes] = ContextVar("request_id", default=b"")
"""Id of the request that the running task works on; empty outside one."""
