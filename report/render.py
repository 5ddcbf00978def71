"""The report: what was asked of the system, what it did, what it costs, and how each figure was made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.costs import Cost, read_costs
from contract.errors import InputError, SluiceError
from contract.family import Family
from contract.files import inside
from contract.policy import Policy
from contract.predictions import Predictions
from contract.run import Summary, read_requests, read_summary
from report.analysis.decide import decide, decision_table
from report.analysis.economics import read_business
from report.analysis.options import options_from_comparison, options_from_runs
from report.format.document import (
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
from report.format.figures import percent, plain, points, short_hash, significant, size, times
from report.sections.family_sections import family_sections
from report.sections.load import arm_charts, latency_chart, load_charts
from report.sections.policy_text import (
    certificate_in_words,
    expected_in_words,
    gears_in_words,
    path_in_words,
)
from report.sections.provenance import Run, machine_of, provenance
from report.sections.run_tables import arms_table, runs_table, shares_table
from report.sections.tradeoff import choices_table, policy_parts_tables, tradeoff, tradeoff_chart
from tables.predictions import read_predictions

MOST_OPEN_ROWS = 8


@dataclass(frozen=True)
class Evidence:
    """What a report can be made of; whatever is left out has no section.

    Attributes:
        family: the family, for frontier, variants, slices and costs.
        family_folder: where it lies; with it the policies are replayed on its predictions, and differences
            between its variants have intervals.
        policies: the policies to explain.
        runs: run folders.
        comparison: the result of `report.analysis.arms.compare`.
        business: YAML of business figures (report.economics.Business).
        predictions, costs: files to replay the policies on, in place of the family's.
        steps: more run folders, only for the curves over the rate: the steps of a search for capacity.
    """

    family: Family | None = None
    family_folder: Path | None = None
    policies: Sequence[Policy] = ()
    runs: Sequence[Path] = ()
    comparison: Mapping[str, Any] | None = None
    business: Path | None = None
    steps: Sequence[Path] = ()
    predictions: Path | None = None
    costs: Path | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report on."""
        return self.family is None and not self.policies and not self.runs and self.comparison is None


def render_report(given: Evidence, out: Path) -> list[Path]:
    """Write the report of what is given and return the paths written, the HTML page first.

    Args:
        given: what to report on.
        out: the page; Markdown and a folder of SVG files go beside it.

    Raises:
        InputError: nothing was given to report on, or a file breaks a rule.
    """
    if given.empty:
        raise InputError("there is nothing to report on", hint="give a family, a --policy or a --run")
    family, policies, comparison = given.family, given.policies, given.comparison
    loaded = [
        (name, read_summary(folder), read_requests(folder))
        for name, folder in zip(short_names(given.runs), given.runs, strict=True)
    ]
    found = [
        _result(comparison),
        _decision(loaded, given.runs, comparison, given.business),
        *_policies(policies, _replayable(given) if policies else None),
        *([] if family is None else family_sections(family, policies, _answers(family, given.family_folder))),
        _load(loaded, [read_summary(folder) for folder in given.steps]),
        provenance(family, loaded, comparison),
    ]
    sections = tuple(section for section in found if section is not None and section.blocks)
    title = f"{family.name}: report" if family is not None else "Sluicegate report"
    return write_document(Document(title, _subtitle(family, loaded, comparison), sections), out)


def _subtitle(family: Family | None, runs: Sequence[Run], comparison: Mapping[str, Any] | None) -> str:
    machine = machine_of(family, runs, comparison)
    parts = []
    if family is not None:
        parts.append(f"{len(family.variants)} variants, {len(family.labels)} labels")
    if runs:
        parts.append(f"{len(runs)} runs, {sum(run.n for _, run, _ in runs):,} requests")
    if machine is not None:
        parts.append(f"{machine.cpu}, {plain(machine.cores)} cores, {size(machine.memory_bytes)}")
    return "; ".join(parts) + "." if parts else ""


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
    """Return the last arm against the first in one sentence, leaving out what was not measured.

    Capacities are compared only where the server, not the generator, was the limit of both.
    """
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
    limits = [(arm.get("search") or {}).get("limited_by", "server") for arm in (first, last)]
    if mine and theirs and limits == ["server", "server"]:
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


def _policies(policies: Sequence[Policy], data: tuple[Predictions, dict[str, Cost]] | None) -> list[Section]:
    sections = []
    for index, policy in enumerate(policies):
        key = "policy" if len(policies) == 1 else f"policy-{index + 1}"
        title = f"The policy ({policy.status.replace('_', ' ')})"
        said = blocks(
            Paragraph(certificate_in_words(policy)[0], lead=True),
            Bullets(path_in_words(policy)),
            [Paragraph(text) for text in certificate_in_words(policy)[1:]],
            [Paragraph(text) for text in gears_in_words(policy)],
            [Paragraph(text) for text in expected_in_words(policy)],
            Paragraph(f"Version {short_hash(policy.version or policy.content_sha256())}."),
            _replayed(policy, data, key),
        )
        sections.append(Section(key, title if len(policies) == 1 else f"{title} {index + 1}", said))
    return sections


def _replayable(given: Evidence) -> tuple[Predictions, dict[str, Cost]] | None:
    table, costs, family, folder = given.predictions, given.costs, given.family, given.family_folder
    if (table is None) != (costs is None):
        raise InputError("predictions and costs go together", hint="--predictions P --costs C")
    if table is not None and costs is not None:
        return read_predictions(table), read_costs(costs)
    answers = _answers(family, folder)
    if answers is None or family is None or folder is None or family.costs is None:
        return None
    return answers, read_costs(inside(folder, family.costs.path))


def _answers(family: Family | None, folder: Path | None) -> Predictions | None:
    if family is None or folder is None or family.predictions is None:
        return None
    return read_predictions(inside(folder, family.predictions.path), labels=family.labels)


def _replayed(
    policy: Policy, data: tuple[Predictions, dict[str, Cost]] | None, key: str
) -> tuple[Block, ...]:
    if data is None:
        return ()
    try:
        found = tradeoff(policy, *data)
    except SluiceError as problem:
        return (Paragraph(f"The policy could not be replayed on these predictions: {problem.message}"),)
    if found is None:
        return ()
    return blocks(
        Figures((tradeoff_chart(found, policy, f"{key}-tradeoff"),)),
        Tabular(choices_table(found, policy, f"{key}-choices")),
        [Tabular(table) for table in policy_parts_tables(found, key)],
    )


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the part of each path that tells it from the others: `cascade/equal-0`."""
    if len(folders) < 2:
        return [folder.name for folder in folders]
    shared = Path(os.path.commonpath(folders))
    return [folder.relative_to(shared).as_posix() if folder != shared else folder.name for folder in folders]


def _load(runs: Sequence[Run], steps: Sequence[Summary]) -> Section | None:
    if not runs:
        return None
    named = [(name, run) for name, run, _ in runs]
    spread = latency_chart([(run, table) for _, run, table in runs])
    longest = {run.model: (name, run) for name, run in sorted(named, key=lambda item: item[1].n)}
    shares = [shares_table(name, run) for name, run in longest.values()]
    return Section(
        "load",
        "Under load",
        blocks(
            Figures(tuple(load_charts([*(run for _, run in named), *steps]))),
            None if spread is None else Figures((spread,)),
            [Tabular(table) for table in shares if table is not None],
            Tabular(runs_table(named), folded=len(runs) > MOST_OPEN_ROWS),
        ),
    )
