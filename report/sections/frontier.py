"""Which variants nothing beats: the axes of the frontier and the chart of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from contract.family import Family, Variant
from contract.files import write_text
from contract.formulas import dominators, pareto_mask
from contract.policy import Policy
from report.format.chart import Axis, Chart, Line, Marker, Point
from report.format.figures import percent_interval, plain, usd_per_million
from report.format.scales import percent_form
from report.format.svg import draw

KINDS: dict[str, tuple[str, int, Marker]] = {
    "teacher": ("teacher", 4, "diamond"),
    "remote": ("remote", 4, "diamond"),
    "distilled": ("distilled", 0, "circle"),
    "pruned": ("pruned", 2, "triangle"),
    "quantized": ("quantized", 1, "square"),
    "linear": ("linear", 3, "hexagon"),
    "deep_table": ("deep table", 3, "diamond"),
    "scratch": ("from scratch", 0, "cross"),
    "fake": ("fake", 5, "circle"),
}
MOST_NAMED = 10
WIDE = (720, 440)
POLICY_MARK: tuple[str, int, Marker] = ("cascade", 5, "cross")


@dataclass(frozen=True)
class CostAxis:
    """One cost that accuracy is bought with; `unit` is its short name in tables."""

    key: str
    unit: str
    title: str
    value: Callable[[Variant], float | None]
    expected: Callable[[Policy], float | None]
    form: Callable[[float], str] = plain


def _p50(variant: Variant) -> float | None:
    found = variant.latency_at()
    return None if found is None else found.p50_ms


def megabytes(variant: Variant) -> float | None:
    """A model behind HTTP has a size, which nobody here knows."""
    return None if variant.runtime == "remote" else variant.artifact.bytes / 1e6


AXES = (
    CostAxis("latency", "ms", "latency of one text, p50 (ms)", _p50, lambda p: p.expected.latency_ms),
    CostAxis(
        "cost",
        "USD",
        "cost (USD per million)",
        lambda v: usd_per_million(v.usd_per_1k),
        lambda p: usd_per_million(p.expected.usd_per_1k),
    ),
    CostAxis(
        "energy",
        "Wh",
        "energy (Wh per 1,000)",
        lambda v: v.energy_wh_per_1k,
        lambda p: p.expected.energy_wh_per_1k,
    ),
    CostAxis("size", "MB", "size of the artifact (MB)", megabytes, lambda _: None),
)


def beaten_by(family: Family) -> dict[str, tuple[str, ...]]:
    """Return per variant the others that are no worse in accuracy and on every cost axis, and better in one.

    Axes that are unknown for any variant are left out, but for models behind HTTP, whose size and energy
    nobody knows: they beat no other there. A variant without accuracy is not judged.
    """
    judged = [v for v in family.variants if v.accuracy is not None]
    axes = [a for a in AXES if all(a.value(v) is not None for v in judged if v.runtime != "remote")]
    if not judged:
        return {}
    table = np.array([[-(v.accuracy or 0.0), *(_judged(a.value(v)) for a in axes)] for v in judged])
    return {
        variant.name: tuple(judged[other].name for other in np.flatnonzero(better))
        for variant, better in zip(judged, dominators(table), strict=True)
    }


def _judged(value: float | None) -> float:
    return np.inf if value is None else value


def best_by(family: Family) -> dict[str, tuple[str, ...]]:
    """Return per variant the keys of the costs at which nothing is both as accurate and cheaper.

    A variant is judged against one cost at a time, among the variants of which accuracy and cost are known.
    """
    found: dict[str, tuple[str, ...]] = {v.name: () for v in family.variants if v.accuracy is not None}
    for axis in AXES:
        judged = [v for v in family.variants if v.accuracy is not None and axis.value(v) is not None]
        kept = pareto_mask([(axis.value(v) or 0.0, -(v.accuracy or 0.0)) for v in judged])
        for variant, keep in zip(judged, kept, strict=True):
            if keep:
                found[variant.name] += (axis.key,)
    return found


def frontier_chart(family: Family, axis: CostAxis, policies: Sequence[Policy] = ()) -> Chart | None:
    """Return the chart of accuracy against one cost, or None when fewer than two variants have both figures.

    A hollow mark is dominated on these two axes; the line joins those that are not. Where marks crowd, only
    the others are named, and the chart of latency is wide.
    """
    shown = [v for v in family.variants if v.accuracy is not None and (axis.value(v) or 0) > 0]
    if len(shown) < 2:
        return None
    marks = [_point(v, axis) for v in shown]
    for index, policy in enumerate(policies):
        cost, accuracy = axis.expected(policy), policy.expected.accuracy
        if cost and accuracy is not None and len(policy.stages) > 1:
            name = "cascade" if len(policies) == 1 else f"cascade {index + 1}"
            marks.append(
                Point(cost, accuracy, name, *POLICY_MARK[1:], y_interval=policy.expected.accuracy_interval)
            )
    keep = pareto_mask([(point.x, -point.y) for point in marks])
    winners = ", ".join(
        point.name for point, kept in sorted(zip(marks, keep, strict=True), key=lambda m: m[0].x) if kept
    )
    crowded = len(marks) > MOST_NAMED
    marks = [
        replace(point, hollow=not kept, name=point.name if kept or not crowded else "")
        for point, kept in zip(marks, keep, strict=True)
    ]
    best = sorted((point.x, point.y) for point in marks if not point.hollow)
    spans = [y for point in marks for y in (point.y_interval or (point.y, point.y))]
    kinds = {v.kind: KINDS[v.kind] for v in shown}
    legend = [*kinds.values()]
    if any((point.colour, point.marker) == POLICY_MARK[1:] for point in marks):
        legend.append(POLICY_MARK)
    return Chart(
        key=f"frontier-{axis.key}",
        title=f"Accuracy against {axis.title}",
        description=(
            f"Scatter of {len(marks)} variants and policies. Nothing beats, from cheap to dear: {winners}. "
            "Bars are 95% intervals; hollow marks are dominated. The figures are in the table of variants."
        ),
        x=Axis(axis.title, log=True, form=axis.form),
        y=Axis("accuracy on the test split", form=percent_form(max(spans) - min(spans))),
        points=tuple(marks),
        lines=(Line(tuple(best), stepped=True, colour=5, thin=True),),
        legend=tuple(legend),
        width=WIDE[0] if crowded and axis is AXES[0] else Chart.width,
        height=WIDE[1] if crowded and axis is AXES[0] else Chart.height,
    )


def _point(variant: Variant, axis: CostAxis) -> Point:
    _, colour, marker = KINDS[variant.kind]
    cost, accuracy = axis.value(variant) or 0.0, variant.accuracy or 0.0
    return Point(
        cost,
        accuracy,
        variant.name,
        colour,
        marker,
        y_interval=variant.accuracy_interval,
        tooltip=f"{variant.name}: {percent_interval(accuracy, variant.accuracy_interval)}, {axis.form(cost)}",
    )


def write_frontier(family: Family, out: Path, *, axis: str = "latency") -> Path:
    """Write the frontier of a family as one SVG file and return its path.

    Without two measured variants the file says so. `axis` is one of latency, cost, energy, size.
    """
    chosen = next(a for a in AXES if a.key == axis)
    chart = frontier_chart(family, chosen)
    if chart is None:
        chart = Chart(
            f"frontier-{axis}",
            "Frontier",
            "Fewer than two variants are measured: there is nothing to draw.",
            Axis(chosen.title),
            Axis("accuracy"),
        )
    write_text(out, draw(replace(chart, width=WIDE[0], height=WIDE[1]), standalone=True) + "\n")
    return out
