"""How many replicas: a number, or a range within which load decides."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from serve.settings.record import Setting


class Scaling(Setting):
    """Replicas between two bounds: as many as keep both targets, more soon and fewer late."""

    min: int = Field(default=1, ge=1, description="Started with, and never fewer")
    max: int = Field(ge=1, description="Never more")
    queued: float = Field(
        default=8.0, gt=0, description="Target: texts that wait or run, per replica, on average"
    )
    busy: float = Field(
        default=0.7, gt=0, le=1, description="Target: share of its time in which a replica works"
    )
    up_after_s: float = Field(default=3.0, ge=0, description="Load beyond a target this long adds replicas")
    down_after_s: float = Field(
        default=60.0, ge=0, description="Load that fewer would carry this long takes one away, drained first"
    )
    window_s: float = Field(default=2.0, gt=0, description="Load is averaged over this long")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, below min, {self.min}")
        return self


def _kind(raw: Any) -> str:
    return "range" if isinstance(raw, dict | Scaling) else "number"


Replicas = Annotated[
    Annotated[int, Field(gt=0), Tag("number")] | Annotated[Scaling, Tag("range")], Discriminator(_kind)
]


def fewest(replicas: int | Scaling) -> int:
    """Return how many replicas are started."""
    return replicas.min if isinstance(replicas, Scaling) else replicas


def most(replicas: int | Scaling) -> int:
    """Return how many replicas there may be."""
    return replicas.max if isinstance(replicas, Scaling) else replicas
