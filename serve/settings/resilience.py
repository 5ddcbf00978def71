"""What a gateway does about stages that fail: circuit breakers, retries with a budget, hedged calls."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serve.settings.record import Setting


class BreakerRules(Setting):
    """When a stage is no longer asked, and how it is tried again."""

    enabled: bool = True
    window_calls: int = Field(default=20, ge=1, description="The last calls that are looked at")
    min_failures: int = Field(default=5, ge=1, description="Fewer failures among them never open it")
    failure_share: float = Field(default=0.5, gt=0, le=1, description="Of these calls; at or above it opens")
    open_s: float = Field(default=1.0, gt=0, description="Until the first probe; doubles while probes fail")
    max_open_s: float = Field(default=5.0, gt=0)


class RetryRules(Setting):
    """How much work may be done twice. A retry or a hedge takes one from the budget, for each text."""

    share: float = Field(default=0.1, ge=0, le=1, description="Of the texts asked for; 0: none is sent twice")
    burst: float = Field(default=16.0, ge=0, description="What may be saved up")


HedgeAfter = Literal["p95"] | float
"""Milliseconds, or the 95th percentile of the stage's own calls."""


class Resilience(Setting):
    """How a gateway deals with a stage behind a handle that fails or is late."""

    breaker: BreakerRules = BreakerRules()
    retries: RetryRules = RetryRules()
    hedge_after: HedgeAfter | None = Field(
        default=None,
        description="A call that is out for so long (ms, or p95) is sent to another replica too; null: never",
    )
