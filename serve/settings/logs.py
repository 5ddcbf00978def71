"""What the gateway's own processes write to their logs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from serve.settings.record import Setting


class LogSettings(Setting):
    """Form, level and place of logs. No text of a request is ever in them."""

    format: Literal["text", "json"] = "text"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    folder: str | None = Field(
        default=None,
        description="Absolute path: a file per process there; null: where Ray keeps what its workers print",
    )
    max_mib: int = Field(default=64, gt=0, description="Of one file; three older ones are kept beside it")
    requests: Literal["none", "errors", "all"] = Field(
        default="none", description="A line per request that asks for answers; errors: only those without any"
    )
    requests_share: float = Field(
        default=1.0, gt=0, le=1, description="Share of answered requests that get their line; errors all do"
    )
    exceptions: Literal["place", "whole"] = Field(
        default="place",
        description="whole: with the words of unexpected exceptions, which may quote what a client sent",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.folder is not None and not Path(self.folder).is_absolute():
            raise ValueError("log.folder must be an absolute path: replicas do not run in your folder")
        return self
