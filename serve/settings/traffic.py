"""How much of a machine comparisons of a candidate on trial may take."""

from __future__ import annotations

from pydantic import Field

from serve.settings.record import Setting


class TrafficSettings(Setting):
    """Bounds of what canaries and shadows do off the path of requests."""

    max_waiting_texts: int = Field(
        default=256, ge=1, description="Texts that wait for their comparison; beyond: not compared"
    )
    beside_texts: int = Field(
        default=0, ge=0, description="A comparison starts while a replica holds at most so many live texts"
    )
    busy_cpu_share: float | None = Field(
        default=0.85,
        gt=0,
        le=1,
        description="No comparisons while machine, CPU quota or event loop are busier; null: whatever",
    )
    canary_texts_per_s: float = Field(
        default=1.0,
        ge=0,
        description="Texts of a canary that each replica compares a second, however busy; 0: none",
    )
    gather_s: float = Field(default=1.0, gt=0, description="How often control gathers counts and judges")
