"""What a measured figure was measured on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.records import Frozen

EnergyProvenance = Literal["measured-rapl", "estimated-load", "user-constant", "none"]
Provider = Literal["cpu", "cuda", "tensorrt"]


class Machine(Frozen):
    """The machine behind a figure, with the limits that applied."""

    cpu: str = Field(description="Model name of the processor", examples=["AMD EPYC 9R14"])
    cores: float = Field(description="Logical cores usable by the process, cgroup quota included", gt=0)
    memory_bytes: int = Field(description="Memory usable by the process, cgroup limit included", gt=0)
    isa: tuple[str, ...] = Field(default=(), description="Instruction sets that decide INT8 speed")
    gpu: str | None = None
    system: str = Field(description="Operating system and kernel")
    python: str = ""
    packages: dict[str, str] = Field(default_factory=dict, description="Versions that decide speed")
