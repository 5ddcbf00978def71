"""The sections of a report that a family fills: its frontier, its techniques, its parts and its steps."""

from __future__ import annotations

from collections.abc import Sequence

from contract.family import Family
from contract.policy import Policy
from contract.predictions import Predictions
from report.format.document import Bullets, Figures, Section, Tabular, blocks
from report.format.tables import Table
from report.sections.ablation import ablation_table, recovered_table
from report.sections.family_parts import (
    classes_table,
    faithfulness_table,
    losses_table,
    making_table,
    slices_table,
    steps_table,
)
from report.sections.family_tables import latency_table, resources_table, variants_table, verdicts_table
from report.sections.frontier import AXES, beaten_by, best_by, frontier_chart

MOST_OPEN_ROWS = 12


def family_sections(
    family: Family, policies: Sequence[Policy] = (), predictions: Predictions | None = None
) -> list[Section]:
    """Return the sections of a family; with its predictions, differences between variants have intervals."""
    return [
        _frontier(family, policies),
        _section(
            "techniques",
            "What each technique brought",
            ablation_table(family, predictions),
            recovered_table(family, predictions),
        ),
        _section(
            "parts", "Slices and classes", slices_table(family), losses_table(family), classes_table(family)
        ),
        _section(
            "steps",
            "What it took to make",
            making_table(family),
            faithfulness_table(family),
            steps_table(family),
        ),
    ]


def _section(key: str, title: str, *tables: Table | None) -> Section:
    found = [
        Tabular(t, folded=len(t.rows) > MOST_OPEN_ROWS and t.key in {"classes", "steps"})
        for t in tables
        if t is not None
    ]
    return Section(key, title, tuple(found))


def _frontier(family: Family, policies: Sequence[Policy]) -> Section:
    charts = [frontier_chart(family, axis, policies) for axis in AXES]
    verdicts, more = verdicts_table(family), latency_table(family)
    said = frontier_in_words(family)
    return Section(
        "frontier",
        "The family and its frontier",
        blocks(
            Bullets(said) if said else None,
            Figures(tuple(chart for chart in charts if chart is not None)),
            Tabular(variants_table(family)),
            None if verdicts is None else Tabular(verdicts),
            Tabular(resources_table(family)),
            None if more is None else Tabular(more),
        ),
    )


def frontier_in_words(family: Family) -> tuple[str, ...]:
    """Return which variants nothing beats, which are dominated, and which break a limit, a sentence each."""
    best, beaten = best_by(family), beaten_by(family)
    said = []
    dominated = [name for name, by in beaten.items() if by]
    free = [name for name, axes in best.items() if "latency" in axes and name not in dominated]
    if free:
        said.append(f"Nothing is both as accurate and faster than {', '.join(free)}.")
    by_cost = [name for name, axes in best.items() if axes and "latency" not in axes]
    if by_cost:
        said.append(f"On the frontier of another cost only: {', '.join(by_cost)}.")
    off = [name for name, axes in best.items() if not axes and not beaten.get(name)]
    if off:
        said.append(
            f"Beaten at every single cost, though by no one variant at all of them: {', '.join(off)}."
        )
    if dominated:
        said.append(f"Dominated at every cost at once by another variant: {', '.join(dominated)}.")
    failing = [v.name for v in family.judged if v.failed_limits]
    if failing:
        said.append(f"Fail a limit or every tier: {', '.join(failing)}.")
    return tuple(said)
