"""How load moves a policy along its gears."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from serve.settings.record import Setting


class GearSettings(Setting):
    """When a replica changes the gear of a policy that has some.

    What counts is the wait before a stage that texts escalate to, as a share of the time there is for it.
    """

    enabled: bool = Field(default=True, description="false: always in gear busy, the policy's own stages")
    idle: bool = Field(
        default=True, description="false: no gear below busy, which an idle gateway would take"
    )
    up_at: float = Field(default=0.5, gt=0, le=1, description="A share held this long at a time: one gear up")
    at_once_at: float = Field(
        default=0.8, gt=0, le=1, description="Seen twice in a row: the last gear, without the ones between"
    )
    down_at: float = Field(default=0.15, ge=0, lt=1, description="Below it there is room for a dearer gear")
    window_s: float = Field(default=0.25, gt=0, description="The share is smoothed over this long")
    calm_s: float = Field(default=1.0, gt=0, description="Below `down_at` for so long: one gear down")
    most_calm_s: float = Field(
        default=30.0, gt=0, description="A gear that proves too dear at once doubles `calm_s`, up to this"
    )
    wait_ms: float = Field(
        default=500.0,
        gt=0,
        description="The time that there is, where nobody has set an objective or deadline",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.down_at < self.up_at <= self.at_once_at:
            raise ValueError("down_at must be below up_at, and that at most at_once_at")
        if self.most_calm_s < self.calm_s:
            raise ValueError(f"most_calm_s is {self.most_calm_s:g}, below calm_s, {self.calm_s:g}")
        return self
