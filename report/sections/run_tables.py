"""Tables of runs: the arms side by side, run by run, and who answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contract.formulas import Interval
from contract.run import Summary
from report.format.figures import (
    UNKNOWN,
    percent,
    percent_interval,
    plain,
    points_interval,
    significant,
    usd_per_million,
    with_interval,
)
from report.format.tables import Row, Table, slug

Form = Callable[[float | None, Interval | None], str]


def two_digits(value: float | None, interval: Interval | None) -> str:
    """Return a small figure and its interval, short enough for three arms side by side."""
    return with_interval(value, interval, 2)


EQUAL_ROWS: tuple[tuple[str, str, Form], ...] = (
    ("p50_ms", "p50, ms", with_interval),
    ("p99_ms", "p99, ms", with_interval),
    ("accuracy", "accuracy", percent_interval),
    ("accuracy_drop", "drop, points", points_interval),
    ("energy_wh_per_1k", "Wh per 1,000", two_digits),
    ("gco2e_per_1k", "gCO2e per 1,000", two_digits),
    ("escalation_rate", "escalated", percent_interval),
)
CAPACITY_ROWS: tuple[tuple[str, str, Form], ...] = (
    ("goodput_per_s", "goodput per s", with_interval),
    ("usd_per_1k", "USD per 1,000", two_digits),
    ("p99_ms", "p99, ms", with_interval),
    ("energy_wh_per_1k", "Wh per 1,000", two_digits),
)


BOUNDS = {"": "", "at least": "≥ ", "at most": "≤ "}


def arms_table(comparison: Mapping[str, Any]) -> Table:
    """Return the final table: one column per arm of `report.analysis.arms.compare`, one row per figure.

    The last column says how the row's intervals were made.
    """
    arms = comparison["arms"]
    rate = plain(comparison["equal_rate_per_s"])
    rows = [_heading(f"at {rate} per second", len(arms))]
    rows += _figure_rows([arm["equal"] for arm in arms], EQUAL_ROWS)
    if any(arm.get("capacity") for arm in arms):
        rows.append(_heading("at capacity", len(arms)))
        rows += _figure_rows([arm.get("capacity") or {} for arm in arms], CAPACITY_ROWS)
    level, energy = percent(comparison["confidence"], 0), comparison["energy_provenance"]
    notes = [f"In brackets: {level} intervals. Energy: {energy}."]
    if comparison.get("slo_ms"):
        notes.append(f"Goodput: answers within {plain(comparison['slo_ms'])} ms of being due, per second.")
    for arm in arms:
        reasons = [*arm["equal"]["void_reasons"], *((arm.get("capacity") or {}).get("void_reasons") or [])]
        notes += [f"{arm['name']}: void, {reason}." for reason in dict.fromkeys(reasons)]
        notes += _search_notes(arm)
    names = [_name(arm) + ("" if _sound(arm) else " (void)") for arm in arms]
    return Table(
        "arms",
        "The same traffic, answered three ways" if len(arms) == 3 else "The arms",
        ("", *names, "interval"),
        tuple(rows),
        tuple(notes),
        frozenset({"interval"}),
    )


def _name(arm: Mapping[str, Any]) -> str:
    return str(arm["name"] if arm["model"] == arm["name"] else f"{arm['name']}: {arm['model']}")


def _sound(arm: Mapping[str, Any]) -> bool:
    return bool(arm["equal"]["valid"] and (arm.get("capacity") or {}).get("valid", True))


def _heading(text: str, arms: int) -> Row:
    return Row((text, *([""] * (arms + 1))), "strong")


def _figure_rows(parts: Sequence[Mapping[str, Any]], wanted: Sequence[tuple[str, str, Form]]) -> list[Row]:
    rows = []
    for key, title, form in wanted:
        figures = [part.get(key) for part in parts]
        if all(figure is None or figure["value"] is None for figure in figures):
            continue
        cells = [UNKNOWN if f is None else _cell(f, form) for f in figures]
        methods = dict.fromkeys(f["method"] for f in figures if f is not None and f["value"] is not None)
        rows.append(Row((title, *cells, "; ".join(methods))))
    return rows


def _cell(figure: Mapping[str, Any], form: Form) -> str:
    return BOUNDS[figure.get("bound") or ""] + form(figure["value"], figure["interval"])


def _search_notes(arm: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know of the search behind an arm's capacity."""
    search = arm.get("search")
    if search is None:
        return []
    if search["rate_per_s"] is None:
        return [f"{arm['name']}: no rate was held within the objective, so there is no capacity to compare."]
    notes = []
    if search["limited_by"] == "generator":
        notes.append(f"{arm['name']}: the load generator was the limit, so its capacity is at least this.")
    elif search["limited_by"] == "search":
        notes.append(
            f"{arm['name']}: the search ended before the server's limit; its capacity is at least this."
        )
    if not search["confirmed"]:
        notes.append(f"{arm['name']}: capacity held in a short step only.")
    return notes


def runs_table(runs: Sequence[tuple[str, Summary]]) -> Table:
    """Return one row per run (name, summary); void runs are muted and say why."""
    rows = []
    notes = []
    for name, run in runs:
        rows.append(
            Row(
                (
                    name,
                    run.model,
                    plain(run.rate_asked_per_s),
                    significant(run.rate_held_per_s),
                    f"{run.n:,}",
                    f"{run.errors:,}",
                    significant(run.p50_ms),
                    with_interval(run.p99_ms, run.p99_interval_ms),
                    percent_interval(run.accuracy, run.accuracy_interval),
                    percent(run.escalation_rate),
                    percent(run.degraded_rate),
                    percent(run.abstention_rate),
                    with_interval(run.goodput_per_s, run.goodput_interval_per_s),
                    significant(usd_per_million(run.usd_per_1k)),
                    significant(run.energy_wh_per_1k),
                ),
                "" if run.valid else "muted",
            )
        )
        if not run.valid:
            notes.append(f"{name}: void, {run.void_reason or 'no reason given'}.")
        notes += [f"{name}: {doubt}." for doubt in run.doubts]
    columns = (
        "run", "model", "asked/s", "held/s", "n", "errors", "p50 ms", "p99 ms", "accuracy", "escalated",
        "degraded", "abstained", "goodput/s", "USD/1M", "Wh/1k",
    )  # fmt: skip
    largest = max((run for _, run in runs), key=lambda run: run.n, default=None)
    if largest is not None and largest.interval_method:
        notes.append(f"Intervals, of the largest run: {largest.interval_method}.")
    table = Table("runs", "Runs", columns, tuple(rows), tuple(notes), frozenset({"model"}))
    return table.without_empty_columns()


def shares_table(name: str, run: Summary) -> Table | None:
    """Return who answered during a run, or None when only one variant did."""
    answering = {variant: part for variant, part in run.by_variant.items() if part.n}
    if len(answering) < 2:
        return None
    rows = [
        Row(
            (
                variant,
                f"{part.n:,}",
                percent(part.share),
                percent(part.accuracy),
                significant(part.p50_ms),
                significant(part.p99_ms),
                significant(part.cpu_seconds),
            )
        )
        for variant, part in answering.items()
    ]
    columns = ("answered by", "n", "share", "accuracy", "p50 ms", "p99 ms", "CPU s")
    table = Table(f"shares-{slug(name)}", f"Who answered in {name}", columns, tuple(rows))
    return table.without_empty_columns()
