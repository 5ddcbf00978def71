"""What the steps of a recipe cost to run, and what making each variant took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from compress.steps import Step
from compress.store import Finished
from contract.family import StepCost, Training
from contract.formulas import gco2e
from contract.machine import EnergyProvenance
from contract.prices import load_grid

OF_DATA = frozenset({"data", "answered-data"})
SUREST_FIRST: tuple[EnergyProvenance, ...] = ("measured-rapl", "user-constant", "estimated-load", "none")


def step_costs(steps: Sequence[Step], finished: Mapping[str, Finished]) -> tuple[StepCost, ...]:
    """Return what every finished step cost when it was run, in the order of the plan.

    CO2e is at the default grid intensity of the shipped reference data.
    """
    intensity = load_grid().intensity()
    found = []
    for step in steps:
        if step.name not in finished:
            continue
        cost = finished[step.name].cost
        energy = cost.get("energy_wh")
        found.append(
            StepCost(
                name=step.name,
                kind=step.kind,
                seconds=cost["seconds"],
                energy_wh=energy,
                gco2e=None if energy is None else gco2e(energy, intensity),
                energy_provenance=cost.get("provenance", "none"),
                usd=finished[step.name].result.get("usd"),
            )
        )
    return tuple(found)


def training_of(
    name: str, variants: Iterable[str], steps: Sequence[Step], costs: Sequence[StepCost]
) -> Training:
    """Return what it took to make one variant, once the variants that it is made from are there.

    Summed are the step of its name and all that it needs up to the data and the steps of other variants;
    its export and measurement are not. A step that serves several variants counts for each of them.
    Energy and CO2e are unknown where one of the steps was not metered; their provenance is the least sure.
    """
    made = _making(name, variants, steps)
    summed = [cost for cost in costs if cost.name in made]
    energies = [cost.energy_wh for cost in summed if cost.energy_wh is not None]
    emissions = [cost.gco2e for cost in summed if cost.gco2e is not None]
    metered = len(energies) == len(emissions) == len(summed)
    return Training(
        seconds=sum(cost.seconds for cost in summed),
        energy_wh=sum(energies) if metered else None,
        gco2e=sum(emissions) if metered else None,
        energy_provenance=(
            max((cost.energy_provenance for cost in summed), key=SUREST_FIRST.index) if metered else "none"
        ),
        usd=sum(paid) if (paid := [cost.usd for cost in summed if cost.usd is not None]) else None,
        steps=tuple(cost.name for cost in summed),
    )


def _making(name: str, variants: Iterable[str], steps: Sequence[Step]) -> set[str]:
    others = {step for variant in variants if variant != name for step in (variant, f"{variant}.export")}
    by_name = {step.name: step for step in steps}
    made, queue = {name}, [name]
    while queue:
        for needed in by_name[queue.pop()].inputs.values():
            if by_name[needed].kind not in OF_DATA and needed not in others | made:
                made.add(needed)
                queue.append(needed)
    return made
