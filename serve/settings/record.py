"""The base of every record of settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Setting(BaseModel):
    """Base of the records below: immutable, and strict about names, so that no option is silently dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")
