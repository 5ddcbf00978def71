"""The cost table: what 1,000 requests answered by each variant cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import PredictionsError
from contract.files import read_json, write_json

COSTS = "costs.json"


@dataclass(frozen=True)
class Cost:
    """What 1,000 requests answered by one variant cost; None is unknown."""

    usd_per_1k: float
    latency_ms: float | None = None
    energy_wh_per_1k: float | None = None


def read_costs(path: Path) -> dict[str, Cost]:
    """Read costs.json. Raises PredictionsError naming file, variant and rule."""
    return parse_costs(read_json(path, error=PredictionsError), where=path)


def parse_costs(raw: Any, *, where: object = "costs") -> dict[str, Cost]:
    """Return costs by variant from their JSON form. Raises PredictionsError."""
    if not isinstance(raw, dict) or not raw:
        raise PredictionsError("costs are a JSON object: variant to costs", where=where)
    return {name: _cost(name, entry, where) for name, entry in raw.items()}


def _cost(name: str, entry: Any, where: object) -> Cost:
    if not isinstance(entry, dict) or "usd_per_1k" not in entry:
        raise PredictionsError(f"{name!r} has no usd_per_1k", where=where)
    figures: dict[str, float | None] = {}
    for key in ("usd_per_1k", "latency_ms", "energy_wh_per_1k"):
        value = entry.get(key)
        if value is None and key != "usd_per_1k":
            figures[key] = None
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise PredictionsError(
                f"{name!r}: {key} must be a number of 0 or more, not {value!r}", where=where
            )
        else:
            figures[key] = float(value)
    return Cost(
        usd_per_1k=figures["usd_per_1k"] or 0.0,
        latency_ms=figures["latency_ms"],
        energy_wh_per_1k=figures["energy_wh_per_1k"],
    )


def write_costs(path: Path, costs: Mapping[str, Cost]) -> None:
    """Write costs.json atomically."""
    write_json(
        path,
        {
            name: {
                "usd_per_1k": c.usd_per_1k,
                "latency_ms": c.latency_ms,
                "energy_wh_per_1k": c.energy_wh_per_1k,
            }
            for name, c in costs.items()
        },
    )
