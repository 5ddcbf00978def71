"""How variants run: threads, batches, replicas, and the fakes of `serve --fake`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.fake_faults import FakeFaults
from serve.settings.record import Setting
from serve.settings.resilience import Resilience
from serve.settings.scaling import Replicas

Placement = Literal["auto", "inline", "own", "shelf"]


class BatchRules(Setting):
    """How one variant is batched."""

    run_in: Literal["auto", "thread", "loop"] = Field(
        default="auto",
        description="loop: on the event loop, if a text takes well under a millisecond; auto: by measurement",
    )
    lanes: int = Field(default=1, ge=1, description="Batches that run at a time (threads)")
    max_items: int = Field(default=16, ge=1, description="Texts in one call")
    max_queue_items: int = Field(default=512, ge=1, description="Texts waiting or running; beyond: refused")
    max_queue_s: float = Field(default=5.0, gt=0, description="Expected wait; beyond: refused")
    linger_s: float = Field(default=0.0, ge=0, description="An idle worker waits this long for company")
    hang_s: float = Field(
        default=30.0, gt=0, description="A call of the model that takes longer hangs: its process is replaced"
    )


class StageSettings(Resilience):
    """How one variant runs."""

    threads: int = Field(default=1, gt=0, description="Threads of the runtime's session")
    batch: BatchRules = BatchRules()
    placement: Placement = "auto"
    replicas: Replicas = Field(default=1, description="Of its own deployment: a number, or a range by load")
    calls_in_flight: int = Field(
        default=2,
        gt=0,
        description="Handle calls in flight per gateway replica; the rest waits and goes together",
    )


class FakeSettings(Setting):
    """The small family without weights that `serve --fake` runs."""

    delay_ms: float = Field(
        default=5.0, ge=0, description="Time per text of the last stage; the first takes a tenth of it"
    )
    error_rate: float = Field(
        default=0.0, ge=0, le=1, description="Share of the last stage's calls that fail"
    )
    faults: dict[str, FakeFaults] = Field(default={}, description="What a variant does wrong, by its name")
    seed: int = 0
