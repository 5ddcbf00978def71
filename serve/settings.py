"""What an operator can set, in one frozen record: read once from flags, handed to every part as a value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.family import Family
from contract.machine import Provider
from contract.policy import Policy
from runtime.machine import core_count

Placement = Literal["auto", "inline", "own", "shelf"]


_UNDECODED = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes in a path that it cannot decode; it cannot be written as JSON."""


class Setting(BaseModel):
    """Base of the records below: immutable, and strict about names, so that no option is silently dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BatchRules(Setting):
    """How one variant is batched."""

    run_in: Literal["thread", "loop"] = Field(
        default="thread", description="loop: on the event loop, for variants far below a millisecond"
    )
    lanes: int = Field(default=1, ge=1, description="Batches that run at a time (threads)")
    max_items: int = Field(default=16, ge=1, description="Texts in one call")
    max_queue_items: int = Field(default=512, ge=1, description="Texts waiting or running; beyond: refused")
    max_queue_s: float = Field(default=5.0, gt=0, description="Expected wait; beyond: refused")
    linger_s: float = Field(default=0.0, ge=0, description="An idle worker waits this long for company")


class RequestLimits(Setting):
    """Caps of one request and of all requests that one gateway replica holds at a time."""

    max_body_bytes: int = Field(default=1 << 20, gt=0, description="Body, before and after decompression")
    max_texts: int = Field(default=256, gt=0, description="Texts of one request")
    max_characters: int = Field(default=50_000, gt=0, description="Characters of one text")
    max_in_flight_texts: int = Field(default=2048, gt=0, description="Texts held at a time; beyond: 429")
    max_seconds: float = Field(default=30.0, gt=0, description="No request lasts longer, whatever it asks")


class StageSettings(Setting):
    """How one variant runs."""

    threads: int = Field(default=1, gt=0, description="Threads of the runtime's session")
    batch: BatchRules = BatchRules()
    placement: Placement = "auto"
    replicas: int = Field(default=1, gt=0, description="Of its own deployment")
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
    seed: int = 0


class Settings(Setting):
    """Everything that `sluice serve` can be told. Exactly one of `family` and `fake` is given."""

    family: str | None = Field(default=None, description="Absolute path of the family folder")
    policy: str | None = Field(
        default=None, description="Absolute path of policy.json; null: the reference alone"
    )
    fake: FakeSettings | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    admin_port: int = Field(default=8001, ge=1, le=65535)
    state: str | None = Field(
        default=None, description="State directory; null: one that lasts as long as the run"
    )
    provider: Provider = "cpu"
    replicas: int | None = Field(default=None, gt=0, description="Gateway replicas; null: by the cores")
    inline_below_ms: float = Field(
        default=2.0,
        ge=0,
        description="A variant that is measured as fast as this runs inside the gateway replica",
    )
    watts_per_core: float | None = Field(
        default=None, gt=0, description="Energy of a busy CPU-second; null: as CodeCarbon has it"
    )
    limits: RequestLimits = RequestLimits()
    stage: StageSettings = StageSettings()
    stages: dict[str, StageSettings] = Field(
        default_factory=dict, description="By variant, in place of `stage`"
    )
    ready_timeout_s: float = Field(default=60.0, gt=0)
    stop_timeout_s: float = Field(default=15.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.family is None) == (self.fake is None):
            raise ValueError("give a family folder, or --fake, and not both")
        if self.port == self.admin_port:
            raise ValueError("port and admin port must differ")
        for name in ("family", "policy", "state"):
            value = getattr(self, name)
            if value is not None and not Path(value).is_absolute():
                raise ValueError(f"{name} must be an absolute path: replicas do not run in your folder")
            if value is not None and _UNDECODED.search(value):
                raise ValueError(f"{name} {value!a} is no text in this locale: rename it, or LC_ALL=C.UTF-8")
        return self

    def stage_of(self, variant: str) -> StageSettings:
        """Return the settings of that variant."""
        return self.stages.get(variant, self.stage)

    @property
    def gateway_replicas(self) -> int:
        """Replicas of the gateway: as set, else 2 on up to 4 cores and 6 on 16."""
        if self.replicas is not None:
            return self.replicas
        return max(2, min(6, core_count() * 3 // 8))


class Slots(Setting):
    """Where each variant runs for the whole life of a gateway; policies come and go within these slots."""

    inline: tuple[str, ...]
    own: tuple[str, ...]
    shelf: tuple[str, ...]


def slots_of(settings: Settings, family: Family, policy: Policy) -> Slots:
    """Return the slot of every variant.

    As placed by the settings; else inline where an earlier stage of the policy, linear, or measured fast
    enough (fakes never count as fast, so that `--fake` has all slots); the last stage in a deployment of
    its own; the others on the shelf.
    """
    stages = [stage.variant for stage in policy.stages]
    found: dict[str, list[str]] = {"inline": [], "own": [], "shelf": []}
    for variant in family.variants:
        placement = settings.stage_of(variant.name).placement
        if placement == "auto":
            measured = variant.latency_at()
            quick = (
                measured is not None
                and measured.p50_ms <= settings.inline_below_ms
                and variant.runtime != "fake"
            )
            if variant.name in stages[:-1] or variant.kind == "linear" or quick:
                placement = "inline"
            else:
                placement = "own" if variant.name in stages else "shelf"
        found[placement].append(variant.name)
    return Slots(inline=tuple(found["inline"]), own=tuple(found["own"]), shelf=tuple(found["shelf"]))
