"""The report: what was asked of the system, what it did, what it costs, and how each figure was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from contract.errors import InputError, SluiceError
from contract.family import Family
from contract.files import inside
from contract.machine import Machine
from contract.policy import Policy
from contract.predictions import Cost, Predictions, read_costs, read_predictions
from contract.prices import load_grid, load_prices
from contract.run import Summary, read_requests, read_summary
from report.decide import decide, decision_table
from report.document import (
    Block,
    Bullets,
    Document,
    Figures,
    Paragraph,
    Section,
    Tabular,
    blocks,
    write_document,
)
from report.economics import read_business
from report.family_tables import (
    artifacts_table,
    classes_table,
    latency_table,
    resources_table,
    slices_table,
    steps_table,
    variants_table,
)
from report.figures import percent, plain, points, short_hash, significant, size, times
from report.frontier import AXES, beaten_by, frontier_chart
from report.load import arm_charts, latency_chart, load_charts
from report.options import options_from_comparison, options_from_runs
from report.policy_words import certificate_in_words, expected_in_words, path_in_words
from report.run_tables import arms_table, runs_table, shares_table
from report.tradeoff import choices_table, policy_parts_tables, tradeoff, tradeoff_chart

Run = tuple[str, Summary, pa.Table]


def render_report(
    *,
    family: Family | None = None,
    family_folder: Path | None = None,
    policies: Sequence[Policy] = (),
    runs: Sequence[Path] = (),
    comparison: Mapping[str, Any] | None = None,
    business: Path | None = None,
    out: Path,
) -> list[Path]:
    """Write the report of what is given and return the paths written, the HTML page first.

    Args:
        family: the family, for frontier, variants, slices and costs.
        family_folder: where it lies; with it the policies are replayed on its predictions.
        policies: the policies to explain.
        runs: run folders.
        comparison: the result of `report.arms.compare`.
        business: YAML of business figures (report.economics.Business).
        out: the page; Markdown and a folder of SVG files go beside it.

    Raises:
        InputError: nothing was given to report on, or a file breaks a rule.
    """
    if family is None and not policies and not runs and comparison is None:
        raise InputError("there is nothing to report on", hint="give a family, a --policy or a --run")
    loaded = [(folder.name, read_summary(folder), read_requests(folder)) for folder in runs]
    found = [
        _result(comparison),
        _decision(loaded, runs, comparison, business),
        *_policies(policies, family, family_folder),
        _frontier(family, policies),
        _parts(family),
        _load(loaded),
        _provenance(family, loaded, comparison),
    ]
    sections = tuple(section for section in found if section is not None and section.blocks)
    title = f"{family.name}: report" if family is not None else "Sluicegate report"
    return write_document(Document(title, _subtitle(family, loaded, comparison), sections), out)


def _subtitle(family: Family | None, runs: Sequence[Run], comparison: Mapping[str, Any] | None) -> str:
    machine = _machine(family, runs, comparison)
    parts = []
    if family is not None:
        parts.append(f"{len(family.variants)} variants, {len(family.labels)} labels")
    if runs:
        parts.append(f"{len(runs)} runs, {sum(run.n for _, run, _ in runs):,} requests")
    if machine is not None:
        parts.append(f"{machine.cpu}, {plain(machine.cores)} cores, {size(machine.memory_bytes)}")
    return "; ".join(parts) + "." if parts else ""


def _machine(
    family: Family | None, runs: Sequence[Run], comparison: Mapping[str, Any] | None
) -> Machine | None:
    for _, run, _ in runs:
        if run.machine is not None:
            return run.machine
    if comparison is not None and comparison.get("machine"):
        return Machine.model_validate(comparison["machine"])
    return None if family is None else family.machine


def _result(comparison: Mapping[str, Any] | None) -> Section | None:
    if comparison is None:
        return None
    return Section(
        "result",
        "The result",
        blocks(
            Paragraph(headline(comparison), lead=True),
            Tabular(arms_table(comparison)),
            Figures(tuple(arm_charts(comparison))),
        ),
    )


def headline(comparison: Mapping[str, Any]) -> str:
    """Return the last arm against the first in one sentence, leaving out what was not measured."""
    first, last = comparison["arms"][0], comparison["arms"][-1]
    before, after = first["equal"], last["equal"]
    parts = []
    if after["accuracy"]["value"] is not None:
        drop = (after.get("accuracy_drop") or {}).get("value")
        against = "" if drop is None else f" ({points(-drop)} points against {first['name']})"
        parts.append(f"{last['name']} answers {percent(after['accuracy']['value'])} right{against}")
    for key, unit in (("p99_ms", "ms at p99"), ("energy_wh_per_1k", "Wh per 1,000")):
        mine, theirs = after[key]["value"], before[key]["value"]
        if mine is not None and theirs is not None:
            parts.append(f"{significant(mine)} {unit} instead of {significant(theirs)}")
    said = f"At {plain(comparison['equal_rate_per_s'])} requests per second {', '.join(parts)}."
    mine, theirs = (
        ((arm.get("capacity") or {}).get("goodput_per_s") or {}).get("value") for arm in (last, first)
    )
    if mine and theirs:
        said += f" At capacity it holds {times(mine / theirs)} the goodput."
    return said


def _decision(
    loaded: Sequence[Run],
    runs: Sequence[Path],
    comparison: Mapping[str, Any] | None,
    business: Path | None,
) -> Section | None:
    if comparison is not None:
        options = options_from_comparison(comparison)
    elif any(run.valid for _, run, _ in loaded):
        options = options_from_runs(runs)
    else:
        return None
    decision = decide(options, read_business(business))
    chosen = "Nothing can be recommended" if decision.chosen is None else f"Recommended: {decision.chosen}"
    return Section(
        "decision",
        "The decision, in money and carbon",
        blocks(
            Paragraph(f"{chosen}.", lead=True),
            Bullets(decision.reasons),
            Tabular(decision_table(decision)),
        ),
    )


def _policies(policies: Sequence[Policy], family: Family | None, folder: Path | None) -> list[Section]:
    data = _replayable(family, folder) if policies else None
    sections = []
    for index, policy in enumerate(policies):
        key = "policy" if len(policies) == 1 else f"policy-{index + 1}"
        title = f"The policy ({policy.status.replace('_', ' ')})"
        said = blocks(
            Paragraph(certificate_in_words(policy)[0], lead=True),
            Bullets(path_in_words(policy)),
            [Paragraph(text) for text in certificate_in_words(policy)[1:]],
            [Paragraph(text) for text in expected_in_words(policy)],
            Paragraph(f"Version {short_hash(policy.version or policy.content_sha256())}."),
            _replayed(policy, data, key),
        )
        sections.append(Section(key, title if len(policies) == 1 else f"{title} {index + 1}", said))
    return sections


def _replayable(family: Family | None, folder: Path | None) -> tuple[Predictions, dict[str, Cost]] | None:
    if family is None or folder is None or family.predictions is None or family.costs is None:
        return None
    predictions = read_predictions(inside(folder, family.predictions.path), labels=family.labels)
    return predictions, read_costs(inside(folder, family.costs.path))


def _replayed(
    policy: Policy, data: tuple[Predictions, dict[str, Cost]] | None, key: str
) -> tuple[Block, ...]:
    if data is None:
        return ()
    try:
        found = tradeoff(policy, *data)
    except SluiceError as problem:
        return (
            Paragraph(f"The policy could not be replayed on the family's predictions: {problem.message}"),
        )
    if found is None:
        return ()
    return blocks(
        Figures((tradeoff_chart(found, policy, f"{key}-tradeoff"),)),
        Tabular(choices_table(found, policy, f"{key}-choices")),
        [Tabular(table) for table in policy_parts_tables(found, key)],
    )


def _frontier(family: Family | None, policies: Sequence[Policy]) -> Section | None:
    if family is None:
        return None
    charts = [frontier_chart(family, axis, policies) for axis in AXES]
    beaten = {name: by for name, by in beaten_by(family).items() if by}
    free = [name for name in beaten_by(family) if name not in beaten]
    said = f"Nothing beats {', '.join(free)}." if free else ""
    if beaten:
        said += f" Dominated on every axis that was measured: {', '.join(beaten)}."
    more = latency_table(family)
    return Section(
        "frontier",
        "The family and its frontier",
        blocks(
            Paragraph(said) if said else None,
            Figures(tuple(chart for chart in charts if chart is not None)),
            Tabular(variants_table(family)),
            Tabular(resources_table(family)),
            None if more is None else Tabular(more),
        ),
    )


def _parts(family: Family | None) -> Section | None:
    if family is None:
        return None
    tables = [slices_table(family), classes_table(family), steps_table(family)]
    return Section(
        "parts",
        "Slices, classes, and what each step cost",
        blocks([Tabular(table) for table in tables if table is not None]),
    )


def _load(runs: Sequence[Run]) -> Section | None:
    if not runs:
        return None
    named = [(name, run) for name, run, _ in runs]
    spread = latency_chart([(run, table) for _, run, table in runs])
    shares = [shares_table(name, run) for name, run in named]
    return Section(
        "load",
        "Under load",
        blocks(
            Figures(tuple(load_charts(named))),
            None if spread is None else Figures((spread,)),
            Tabular(runs_table(named)),
            [Tabular(table, folded=True) for table in shares if table is not None],
        ),
    )


def _provenance(family: Family | None, runs: Sequence[Run], comparison: Mapping[str, Any] | None) -> Section:
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
    machine = _machine(family, runs, comparison)
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
