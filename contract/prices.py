"""Reference data: prices and grid intensities, each with its date and source, which a user overrides."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from contract.errors import InputError
from contract.records import Frozen, first_problem
from contract.yamls import read_yaml


class Prices(Frozen):
    """What machines cost. `as_of` and `source` travel with every figure made from them."""

    as_of: str
    source: str
    usd_per_core_hour: float = Field(gt=0)
    usd_per_gpu_hour: dict[str, float] = Field(default_factory=dict)


class Grid(Frozen):
    """Carbon intensity of electricity by place."""

    as_of: str
    source: str
    default: str
    g_per_kwh: dict[str, float]

    def intensity(self, place: str | None = None) -> float:
        """Return gCO2e per kWh. Raises InputError for an unknown place."""
        key = (place or self.default).lower()
        if key not in self.g_per_kwh:
            raise InputError(f"no grid intensity for {key!r}", hint=f"one of: {', '.join(self.g_per_kwh)}")
        return self.g_per_kwh[key]


def load_prices(path: Path | None = None) -> Prices:
    """Return the prices of a file, or the shipped ones. Raises InputError."""
    try:
        return Prices.model_validate(_read(path, "prices.yaml"))
    except ValidationError as problem:
        raise InputError(first_problem(problem), where=path) from None


def load_grid(path: Path | None = None) -> Grid:
    """Return the grid intensities of a file, or the shipped ones. Raises InputError."""
    try:
        return Grid.model_validate(_read(path, "grid.yaml"))
    except ValidationError as problem:
        raise InputError(first_problem(problem), where=path) from None


def _read(path: Path | None, shipped: str) -> Any:
    if path is None:
        return yaml.safe_load((resources.files("contract") / "reference" / shipped).read_text("utf-8"))
    return read_yaml(path)
