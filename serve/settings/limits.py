"""Caps of requests."""

from __future__ import annotations

from pydantic import Field

from serve.settings.record import Setting

_GRPC_ROOM = 1 << 14
"""Bytes of a gRPC message beyond a body's: what is a little too large shall be refused in our words."""


class RequestLimits(Setting):
    """Caps of one request and of all requests that one gateway replica holds at a time."""

    max_body_bytes: int = Field(default=1 << 20, gt=0, description="Body, before and after decompression")
    max_texts: int = Field(default=256, gt=0, description="Texts of one request")
    max_characters: int = Field(default=50_000, gt=0, description="Characters of one text")
    max_in_flight_texts: int = Field(default=2048, gt=0, description="Texts held at a time; beyond: 429")
    max_seconds: float = Field(default=30.0, gt=0, description="No request lasts longer, whatever it asks")
    objective_ms: float | None = Field(
        default=None,
        gt=0,
        description="Answers later than this are worth nothing: what waits and cannot be answered in time is "
        "refused, the oldest first; a policy's own limit comes before it; null: only deadlines count",
    )

    @property
    def max_message_bytes(self) -> int:
        """Of a message of gRPC: beyond it the server refuses it unread."""
        return self.max_body_bytes + _GRPC_ROOM
