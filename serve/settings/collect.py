"""What is kept of questions that are answered elsewhere, and how much of it may be lost."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from contract.collected import KeepRules, Redaction
from serve.settings.record import Setting


class CollectSettings(Setting):
    """Where questions and answers of the upstream are kept, and by which rules."""

    folder: str = Field(description="Absolute path of the store")
    texts: bool = Field(default=False, description="Keep texts; without them nothing can be trained")
    retention_days: float = Field(default=30.0, gt=0, description="Older rows are removed")
    redact: tuple[Redaction, ...] = Field(
        default=(), description="Patterns replaced in texts and instructions before anything is written"
    )
    part_rows: int = Field(default=500, ge=1, description="A part is written once it has so many rows")
    part_s: float = Field(
        default=5.0, gt=0, description="Or once its first row is so old: a crash loses no more of a replica"
    )
    max_waiting: int = Field(
        default=4096, ge=1, description="Answers of one replica that wait to be read; beyond: not kept"
    )

    max_waiting_bytes: int = Field(
        default=1 << 26,
        ge=1,
        description="Bytes of the requests and replies that wait to be read; beyond: not kept",
    )
    max_redacted_characters: int = Field(
        default=4096,
        ge=1,
        description="Longer texts and instructions are not kept where there is a pattern to look for",
    )

    @field_validator("folder")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not Path(path).is_absolute():
            raise ValueError("collect.folder must be an absolute path: replicas do not run in your folder")
        return path

    @property
    def rules(self) -> KeepRules:
        """What is kept."""
        return KeepRules(texts=self.texts, retention_days=self.retention_days, redact=self.redact)
