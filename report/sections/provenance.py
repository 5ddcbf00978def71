"""How the figures of a report were made: prices, grid, energy, data, machine and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from contract.family import Family
from contract.machine import Machine
from contract.prices import load_grid, load_prices
from contract.run import Summary
from report.format.document import Bullets, Section, Tabular, blocks
from report.format.figures import plain, short_hash, significant, size
from report.sections.family_parts import artifacts_table

Run = tuple[str, Summary, pa.Table]


def provenance(family: Family | None, runs: Sequence[Run], comparison: Mapping[str, Any] | None) -> Section:
    """Return where prices, grid, energy, data and versions come from."""
    prices, grid = load_prices(), load_grid()
    said = [
        f"Prices: {significant(prices.usd_per_core_hour)} USD per core-hour, as of {prices.as_of} "
        f"({prices.source}), where a run does not name its own.",
        f"Grid: {significant(grid.intensity())} gCO2e/kWh by default, {grid.as_of} ({grid.source}).",
        "Latency under load runs from the time a request was due, not from when it was sent, so a server "
        "that stalls cannot hide it. Void runs are marked and not used to decide.",
    ]
    said += [f"{key}: {text}" for key, text in _bases(runs).items()]
    kinds: set[str] = {run.energy_provenance for _, run, _ in runs}
    if comparison is not None:
        kinds.add(comparison["energy_provenance"])
    if family is not None:
        kinds |= {variant.energy_provenance for variant in family.variants}
        said += [
            f"Split {name}: {split.n:,} rows, sha256 {short_hash(split.sha256)}."
            for name, split in family.splits.items()
        ]
        said.append(f"Family {short_hash(family.sha256)}, made {family.created_at or 'at an unknown time'}.")
    said.append(_energy(kinds))
    machine = machine_of(family, runs, comparison)
    if machine is not None:
        said.append(
            f"Machine: {machine.cpu}, {plain(machine.cores)} cores, {size(machine.memory_bytes)}, "
            f"{machine.system}" + (f", {', '.join(machine.isa)}" if machine.isa else "") + "."
        )
        if machine.packages:
            said.append("Versions: " + ", ".join(f"{k} {v}" for k, v in machine.packages.items()) + ".")
    files = None if family is None else Tabular(artifacts_table(family), folded=True)
    return Section("provenance", "How the figures were made", blocks(Bullets(tuple(said)), files))


def _bases(runs: Sequence[Run]) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, run, _ in runs:
        found |= run.basis
    return found


def _energy(kinds: set[str]) -> str:
    words = {
        "measured-rapl": "measured by the processor's own counters (RAPL)",
        "estimated-load": "estimated from load and rated power, which can be off by 40% against a meter",
        "user-constant": "computed from a constant that the user gave",
    }
    known = [words[kind] for kind in sorted(kinds) if kind in words]
    return f"Energy: {'; '.join(known)}." if known else "Energy was not measured."


def machine_of(
    family: Family | None, runs: Sequence[Run], comparison: Mapping[str, Any] | None
) -> Machine | None:
    """Return the machine that the figures are from: that of the runs, else of the comparison or family."""
    for _, run, _ in runs:
        if run.machine is not None:
            return run.machine
    if comparison is not None and comparison.get("machine"):
        return Machine.model_validate(comparison["machine"])
    return None if family is None else family.machine
