"""What a stand-in upstream can be told."""

from __future__ import annotations

from pydantic import Field

from serve.settings.record import Setting


class StandInSettings(Setting):
    """How a stand-in answers, what it takes for that, and what goes wrong with it."""

    variant: str | None = Field(default=None, description="Of the family; null: its teacher")
    delay_ms: float = Field(default=0.0, ge=0, description="Every answer comes so long after its request")
    usd_per_1k: float = Field(default=0.0, ge=0, description="Price of 1,000 questions")
    requests_per_s: float | None = Field(
        default=None, gt=0, description="Beyond, after a burst of as many: 429 with Retry-After"
    )
    failing_share: float = Field(default=0.0, ge=0, le=1, description="Of requests, answered with 500")
    api_key_env: str | None = Field(
        default=None, description="Environment variable with the key to be shown; null: none is asked for"
    )
    threads: int = Field(default=1, ge=1, description="Of one call of the model")
    seed: int = Field(default=0, ge=0, description="Of failures, and of answers with a temperature")
    host: str = "127.0.0.1"
    port: int = Field(default=9000, ge=0, le=65535, description="0: a free one")
