"""Money and carbon: what a way of answering costs a business in a month, its errors included."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from contract.errors import InputError
from contract.formulas import Interval, gco2e
from contract.prices import load_grid
from contract.records import Frozen, first_problem
from contract.yamls import read_yaml

DEFAULT_REQUESTS_PER_MONTH = 1_000_000.0


class Business(Frozen):
    """What the answers are worth to whoever runs the gateway. Absent is unknown, and counts as nothing.

    An unknown key is refused, since a misspelt price would silently be zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_month: float = Field(default=DEFAULT_REQUESTS_PER_MONTH, gt=0)
    usd_per_error: float = Field(default=0.0, ge=0, description="What one wrong answer costs")
    utilisation: float = Field(
        default=1.0, gt=0, le=1, description="Share of the provisioned capacity that is used on average"
    )
    usd_per_kwh: float = Field(default=0.0, ge=0, description="Only on premises: rented machines include it")
    usd_per_tonne_co2e: float = Field(default=0.0, ge=0)
    pue: float = Field(default=1.0, ge=1, description="Power usage effectiveness of the building")
    grid: str | None = Field(default=None, description="Place, as in the table of grid intensities")
    grid_g_per_kwh: float | None = Field(default=None, ge=0, description="Own figure, in place of `grid`")
    max_p99_ms: float | None = Field(default=None, gt=0)
    max_accuracy_drop: float | None = Field(default=None, ge=0, le=1, description="Against the best option")
    min_accuracy: float | None = Field(default=None, ge=0, le=1)

    def intensity(self) -> float:
        """Return gCO2e per kWh. Raises InputError for an unknown place."""
        return load_grid().intensity(self.grid) if self.grid_g_per_kwh is None else self.grid_g_per_kwh


def read_business(path: Path | None) -> Business:
    """Return the business figures of a YAML file, or the defaults where there is none.

    Raises:
        InputError: naming file, key and rule.
    """
    if path is None:
        return Business()
    raw = read_yaml(path)
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise InputError("business figures are a mapping of names to numbers", where=path)
    try:
        business = Business.model_validate(raw)
        business.intensity()
    except ValidationError as problem:
        known = ", ".join(Business.model_fields)
        raise InputError(first_problem(problem), where=path, hint=f"the keys are: {known}") from None
    return business


@dataclass(frozen=True)
class Option:
    """One way to answer, as measured. None is not measured.

    `drop_interval` is that of the baseline's accuracy less this one's, paired by text.
    """

    name: str
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    usd_per_1k: float | None = None
    usd_interval: Interval | None = None
    energy_wh_per_1k: float | None = None
    energy_provenance: str = "none"
    p99_ms: float | None = None
    goodput_per_s: float | None = None
    n: int = 0
    baseline: str | None = None
    drop_interval: Interval | None = None


@dataclass(frozen=True)
class Account:
    """What an option costs in a month."""

    compute_usd: float | None
    errors: float | None
    error_usd: float | None
    energy_kwh: float | None
    energy_usd: float | None
    kg_co2e: float | None
    carbon_usd: float | None
    total_usd: float | None
    total_interval: Interval | None


def account(option: Option, business: Business) -> Account:
    """Return the month's account: compute / utilisation + errors + energy + carbon.

    compute = usd_per_1k x requests / 1000 / utilisation; errors = (1 - accuracy) x requests. The total is
    unknown while a part that has a price is; its interval puts every part at its low and at its high end,
    so it is wide rather than narrow.
    """
    thousands = business.requests_per_month / 1000
    compute = _times(option.usd_per_1k, thousands / business.utilisation)
    errors = None if option.accuracy is None else (1 - option.accuracy) * business.requests_per_month
    energy = _times(option.energy_wh_per_1k, thousands / 1000 * business.pue)
    kg = None if energy is None else gco2e(energy * 1000, business.intensity()) / 1000
    parts = {
        "error": _times(errors, business.usd_per_error) if business.usd_per_error else 0.0,
        "energy": _times(energy, business.usd_per_kwh) if business.usd_per_kwh else 0.0,
        "carbon": _times(kg, business.usd_per_tonne_co2e / 1000) if business.usd_per_tonne_co2e else 0.0,
    }
    known = [compute, *parts.values()]
    total = None if any(part is None for part in known) else sum(part for part in known if part is not None)
    return Account(
        compute_usd=compute,
        errors=errors,
        error_usd=parts["error"],
        energy_kwh=energy,
        energy_usd=parts["energy"],
        kg_co2e=kg,
        carbon_usd=parts["carbon"],
        total_usd=total,
        total_interval=None if total is None else _interval(option, business, total),
    )


def _interval(option: Option, business: Business, total: float) -> Interval | None:
    low = high = total
    if option.usd_interval and option.usd_per_1k is not None:
        factor = business.requests_per_month / 1000 / business.utilisation
        low += (option.usd_interval[0] - option.usd_per_1k) * factor
        high += (option.usd_interval[1] - option.usd_per_1k) * factor
    if option.accuracy_interval and option.accuracy is not None:
        factor = business.requests_per_month * business.usd_per_error
        low -= (option.accuracy_interval[1] - option.accuracy) * factor
        high += (option.accuracy - option.accuracy_interval[0]) * factor
    return (low, high) if (low, high) != (total, total) else None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
