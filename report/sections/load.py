"""Charts of load: what happens as the rate grows, how latencies spread, and the arms side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from contract.run import Summary
from report.analysis.estimates import answered, column
from report.format.chart import Axis, Chart, Limit, Line, Marker, Point
from report.format.figures import plain, significant
from report.format.scales import percent_form

COLOURS = 6
MARKERS: tuple[Marker, ...] = ("diamond", "square", "circle", "triangle", "hexagon", "cross")
CURVE_POINTS = 160


def latency_chart(runs: Sequence[tuple[Summary, pa.Table]]) -> Chart | None:
    """Return the share of answers slower than each latency, or None without answers."""
    groups: dict[tuple[float, str], list[pa.Table]] = {}
    for run, table in runs:
        groups.setdefault((float(f"{run.rate_asked_per_s:.3g}"), run.model), []).append(table)
    lines = []
    for index, ((rate, model), tables) in enumerate(
        sorted(groups.items(), key=lambda item: item[0])[:COLOURS]
    ):
        found = [column(table, "latency_ms").astype(float)[answered(table)] for table in tables]
        latency = np.sort(np.concatenate(found))
        latency = latency[latency > 0]
        if latency.size < 2:
            continue
        shares = np.unique(np.geomspace(1 / latency.size, 1, CURVE_POINTS))
        at = np.clip(np.ceil((1 - shares) * latency.size).astype(int), 0, latency.size - 1)
        curve = tuple((float(latency[i]), float(s)) for i, s in zip(at[::-1], shares[::-1], strict=True))
        lines.append(Line(curve, f"{model} at {plain(rate)}/s", index % COLOURS))
    if not lines:
        return None
    slo = next((run.slo_ms for run, _ in runs if run.slo_ms), None)
    limits = [Limit(0.01, "1%: p99")]
    if slo:
        limits.append(Limit(slo, f"objective {plain(slo)} ms", "x"))
    return Chart(
        key="latency-distribution",
        title="How latencies spread",
        description=(
            f"Share of answers slower than each latency, for {len(lines)} pairs of model and rate. "
            "The p99 of each run is in the table of runs."
        ),
        x=Axis("latency from the intended send time (ms)", log=True),
        y=Axis("share of answers slower", log=True, form=lambda value: f"{100 * value:g}%"),
        lines=tuple(lines),
        limits=tuple(limits),
        width=720,
        height=380,
    )


def load_charts(runs: Sequence[Summary]) -> list[Chart]:
    """Return p99 and goodput against the rate asked; nothing where no model was asked two rates."""
    models: dict[str, list[Summary]] = {}
    for run in sorted(runs, key=lambda run: run.rate_asked_per_s):
        models.setdefault(run.model, []).append(run)
    curves = {
        model: found for model, found in models.items() if len({run.rate_asked_per_s for run in found}) > 1
    }
    if not curves:
        return []
    slo = next((run.slo_ms for run in runs if run.slo_ms), None)
    p99 = _curve("p99_ms", "p99 (ms)", curves, log=True, limit=slo)
    goodput = _curve("goodput_per_s", "goodput per second", curves, log=False, limit=None)
    return [chart for chart in (p99, goodput) if chart is not None]


def _curve(
    key: str, title: str, curves: Mapping[str, Sequence[Summary]], *, log: bool, limit: float | None
) -> Chart | None:
    lines, marks = [], []
    for index, (model, found) in enumerate(curves.items()):
        rates: dict[float, list[float]] = {}
        for run in found:
            if run.valid and getattr(run, key) is not None:
                rates.setdefault(float(f"{run.rate_asked_per_s:.3g}"), []).append(getattr(run, key))
        middle = tuple((rate, float(np.median(values))) for rate, values in rates.items())
        lines.append(Line(middle, model, index % COLOURS))
        for run in found:
            value = getattr(run, key)
            if value is not None:
                interval = run.p99_interval_ms if key == "p99_ms" else run.goodput_interval_per_s
                marks.append(
                    Point(
                        run.rate_asked_per_s,
                        value,
                        colour=index % COLOURS,
                        hollow=not run.valid,
                        y_interval=interval,
                        tooltip=f"{model} at {plain(run.rate_asked_per_s)}/s: {significant(value)}",
                    )
                )
    if not marks:
        return None
    return Chart(
        key=f"load-{key.partition('_')[0]}",
        title=f"{title} against the rate asked",
        description=(
            f"One line per model ({', '.join(curves)}), through the median of repeats. "
            "Hollow marks are void runs."
        ),
        x=Axis("requests asked per second", log=_wide([mark.x for mark in marks])),
        y=Axis(title, log=log, low=None if log else 0.0),
        points=tuple(marks),
        lines=tuple(lines),
        limits=(Limit(limit, "objective"),) if limit else (),
    )


def _wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > 10


def arm_charts(comparison: Mapping[str, Any]) -> list[Chart]:
    """Return accuracy against p99 at the equal rate, and against price at capacity, one mark per arm."""
    rate = plain(comparison["equal_rate_per_s"])
    p99 = _arms(comparison, "equal", "p99_ms", f"p99 at {rate}/s (ms)", "arms-p99")
    price = _arms(comparison, "capacity", "usd_per_1k", "USD per million at capacity", "arms-price", 1000.0)
    return [chart for chart in (p99, price) if chart is not None]


def _arms(
    comparison: Mapping[str, Any], part: str, key: str, title: str, name: str, scale: float = 1.0
) -> Chart | None:
    marks = []
    for index, arm in enumerate(comparison["arms"]):
        cost = (arm.get(part) or {}).get(key) or {"value": None}
        accuracy = arm["equal"]["accuracy"]
        if not cost["value"] or accuracy["value"] is None:
            continue
        marks.append(
            Point(
                scale * cost["value"],
                accuracy["value"],
                arm["name"],
                (4, 1, 0, 2, 3, 5)[index % COLOURS],
                MARKERS[index % len(MARKERS)],
                x_interval=None
                if cost["interval"] is None
                else tuple(scale * end for end in cost["interval"]),
                y_interval=accuracy["interval"],
            )
        )
    if len(marks) < 2:
        return None
    spans = [end for mark in marks for end in (mark.y_interval or (mark.y, mark.y))]
    return Chart(
        key=name,
        title=f"Accuracy against {title}",
        description=f"{len(marks)} arms; bars are intervals. Figures: the table of arms.",
        x=Axis(title, log=True),
        y=Axis("accuracy", form=percent_form(max(spans) - min(spans))),
        points=tuple(marks),
    )
