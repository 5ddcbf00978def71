"""Everything that `sluice serve` can be told, in one record."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from contract.machine import Provider
from contract.roster import check_served_name
from runtime.machine import core_count
from serve.settings.access import AccessSettings
from serve.settings.collect import CollectSettings
from serve.settings.decisions import DecisionSettings
from serve.settings.gears import GearSettings
from serve.settings.limits import RequestLimits
from serve.settings.logs import LogSettings
from serve.settings.record import Setting
from serve.settings.scaling import Replicas, fewest
from serve.settings.stages import FakeSettings, StageSettings
from serve.settings.tls import TlsSettings
from serve.settings.traces import TraceSettings
from serve.settings.traffic import TrafficSettings
from serve.settings.upstream import UpstreamSettings

_UNDECODED = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes in a path that it cannot decode; it cannot be written as JSON."""


S3 = "s3://"
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f]*)?\Z")

PATHS: tuple[tuple[str, ...], ...] = (
    ("family",),
    ("policy",),
    ("state",),
    ("family_cache",),
    ("tls", "cert"),
    ("tls", "key"),
    ("tls", "client_ca"),
    ("upstream", "key_file"),
    ("collect", "folder"),
)
"""Settings that are paths: a settings file may have them relative to its own folder."""


class FamilySettings(Setting):
    """One of several families that a gateway starts with."""

    path: str = Field(description="Absolute path of the family folder")
    name: str | None = Field(
        default=None, description="That it is served under; null: the one in its manifest"
    )
    policy: str | None = Field(
        default=None, description="Absolute path of its policy.json; null: its reference alone"
    )

    @field_validator("name")
    @classmethod
    def _fit(cls, name: str | None) -> str | None:
        return None if name is None else check_served_name(name)


class Settings(Setting):
    """Everything that `sluice serve` can be told. One of `family`, `families` and `fake` is given."""

    family: str | None = Field(default=None, description="Absolute path of the family folder")
    policy: str | None = Field(
        default=None, description="Absolute path of policy.json; null: the reference alone"
    )
    families: tuple[FamilySettings, ...] = Field(default=(), description="Several, in place of `family`")
    fake: FakeSettings | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    admin_host: str = Field(
        default="127.0.0.1", description="Address that the admin interface listens on, one of this machine's"
    )
    admin_port: int = Field(default=8001, ge=1, le=65535)
    grpc_port: int | None = Field(
        default=None, ge=1, le=65535, description="Open Inference Protocol over gRPC; null: not offered"
    )
    state: str | None = Field(
        default=None,
        description="State directory, or s3://BUCKET/PREFIX; null: a directory that lasts as long as the run",
    )
    family_cache: str | None = Field(
        default=None,
        description="Folder of each node for the families that it fetches; null: in the state directory",
    )
    provider: Provider = "cpu"
    replicas: Replicas | None = Field(
        default=None, description="Gateway replicas, a number or a range by load; null: by the cores"
    )
    replicas_per_node: int | None = Field(
        default=None, ge=1, le=100, description="Gateway replicas that one node of a cluster holds at most"
    )
    inline_below_ms: float = Field(
        default=2.0,
        ge=0,
        description="A variant that is measured as fast as this runs inside the gateway replica",
    )
    watts_per_core: float | None = Field(
        default=None, gt=0, description="Energy of a busy CPU-second; null: as CodeCarbon has it"
    )
    limits: RequestLimits = RequestLimits()
    traffic: TrafficSettings = TrafficSettings()
    gears: GearSettings = GearSettings()
    access: AccessSettings = AccessSettings()
    tls: TlsSettings = TlsSettings()
    decisions: DecisionSettings = DecisionSettings()
    upstream: UpstreamSettings | None = Field(
        default=None, description="Asked what no family here answers; null: that is refused"
    )
    collect: CollectSettings | None = Field(
        default=None, description="Keeps what the upstream answers; null: nothing is kept"
    )
    stage: StageSettings = StageSettings()
    stages: dict[str, StageSettings] = Field(
        default_factory=dict, description="By variant, over `stage`: what is not said here is as said there"
    )
    log: LogSettings = LogSettings()
    traces: TraceSettings = TraceSettings()
    ready_timeout_s: float = Field(default=60.0, gt=0)
    stop_timeout_s: float = Field(default=15.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _lay_over(cls, raw: Any) -> Any:
        """Fill what `stages` leave out from `stage`, where both are as written by people."""
        if not isinstance(raw, dict) or not isinstance(raw.get("stage"), dict):
            return raw
        stages = raw.get("stages")
        if not isinstance(stages, dict):
            return raw
        filled = {
            name: _laid_over(raw["stage"], own) if isinstance(own, dict) else own
            for name, own in stages.items()
        }
        return raw | {"stages": filled}

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_families()
        try:
            ipaddress.ip_address(self.admin_host)
        except ValueError:
            raise ValueError(f"admin_host must be an IP address, not {self.admin_host!r}") from None
        if self.port == self.admin_port:
            raise ValueError("port and admin port must differ")
        if self.grpc_port in {self.port, self.admin_port}:
            raise ValueError("grpc_port must differ from port and admin port")
        for name, value in self._paths():
            if name == "state" and value is not None and value.startswith(S3):
                if not _BUCKET.match(value):
                    raise ValueError(f"state {value!a} names no bucket: s3://BUCKET/PREFIX")
                continue
            if value is not None and not Path(value).is_absolute():
                raise ValueError(f"{name} must be an absolute path: replicas do not run in your folder")
            if value is not None and _UNDECODED.search(value):
                raise ValueError(f"{name} {value!a} is no text in this locale: rename it, or LC_ALL=C.UTF-8")
        return self

    def _check_families(self) -> None:
        asked = (self.family is not None) + (self.fake is not None) + bool(self.families)
        if asked > 1 or (asked == 0 and not self.may_be_empty):
            raise ValueError("give a family folder, or --fake, and not both")
        if self.families and self.policy is not None:
            raise ValueError("policy goes with one family: each of several has its own")
        names = [family.name for family in self.families if family.name is not None]
        if len(set(names)) < len(names):
            raise ValueError("two families have one name")

    def _paths(self) -> Iterator[tuple[str, str | None]]:
        for name in ("family", "policy", "state", "family_cache"):
            yield name, getattr(self, name)
        for family in self.families:
            yield "the path of a family", family.path
            yield "the policy of a family", family.policy

    @property
    def may_be_empty(self) -> bool:
        """Whether a gateway may serve no family at all: somebody else answers then."""
        return self.upstream is not None

    @property
    def started(self) -> tuple[FamilySettings, ...]:
        """The families that folders are named for, one or several."""
        if self.family is None:
            return self.families
        return (FamilySettings(path=self.family, policy=self.policy),)

    def stage_of(self, variant: str) -> StageSettings:
        """Return the settings of that variant."""
        return self.stages.get(variant, self.stage)

    @property
    def gateway_replicas(self) -> int:
        """Replicas that the gateway starts with: as set, else 2 on up to 4 cores and 6 on 16."""
        if self.replicas is not None:
            return fewest(self.replicas)
        return max(2, min(6, core_count() * 3 // 8))


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = below | above
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            merged[key] = _laid_over(below[key], value)
    return merged
