"""Charts as plain SVG text.

No font, script or style sheet is fetched: colours are CSS variables that the page, or the file itself,
defines for light and for dark.
"""

from __future__ import annotations

from html import escape
from itertools import pairwise

from report.format.chart import Chart, Line, Marker, Point
from report.format.labels import Box, Label, place
from report.format.scales import Scale, fit

CHARACTER_WIDTH = 6.1
LEGEND_ROW = 20.0

STYLE = """
.chart{--ink:#1c2430;--ink-2:#566070;--rule:#dfe3e8;--paper:#fff;
--c0:#1f5fa8;--c1:#b4540a;--c2:#2b7a4b;--c3:#7b3fa0;--c4:#a8323e;--c5:#4a5563;
font:12px/1.3 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
@media (prefers-color-scheme:dark){.chart{--ink:#e6e9ee;--ink-2:#a3adba;--rule:#333b47;--paper:#14181e;
--c0:#7db2ee;--c1:#f0a35e;--c2:#76c893;--c3:#c79be6;--c4:#f08b94;--c5:#b4bdc9}}
@media print{.chart{--ink:#000;--ink-2:#333;--rule:#ccc;--paper:#fff;
--c0:#1f5fa8;--c1:#b4540a;--c2:#2b7a4b;--c3:#7b3fa0;--c4:#a8323e;--c5:#4a5563}}
.chart text{fill:var(--ink-2);font-size:12px}.chart .name{fill:var(--ink);font-size:11.5px}
.chart .axis{stroke:var(--ink-2);stroke-width:1}.chart .grid{stroke:var(--rule);stroke-width:1}
.chart .line{fill:none;stroke-width:2;stroke-linejoin:round}.chart .whisker{stroke-width:1.2;opacity:.65}
.chart .halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.chart .limit{stroke:var(--ink-2);stroke-width:1;stroke-dasharray:2 3}
""".strip()


def draw(chart: Chart, *, standalone: bool = False) -> str:
    """Return the chart as SVG text: `standalone` for a file of its own, else for a page that holds STYLE."""
    right, top, bottom = 14.0, 14.0, chart.height - 46.0
    widest = max(len(chart.y.form(tick)) for tick in fit(chart, chart.y, "y", bottom, top).ticks())
    left = max(50.0, 28.0 + CHARACTER_WIDTH * 1.1 * widest)
    legend, rows = _legend(chart, left)
    top += LEGEND_ROW * rows
    plot = (left, top, chart.width - right, bottom)
    x = fit(chart, chart.x, "x", plot[0], plot[2])
    y = fit(chart, chart.y, "y", plot[3], plot[1])
    parts = [
        *_frame(chart, x, y, plot),
        *_limits(chart, x, y, plot),
        *(_line(line, x, y) for line in chart.lines),
        *(_whiskers(point, x, y) for point in chart.points),
        *(_mark(point, x(point.x), y(point.y)) for point in chart.points),
        *_names(chart, x, y, plot),
        *legend,
    ]
    title, description = f"{chart.key}-title", f"{chart.key}-description"
    head = (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {chart.width} {chart.height}" '
        f'role="img" aria-labelledby="{title} {description}">'
        f'<title id="{title}">{escape(chart.title)}</title>'
        f'<desc id="{description}">{escape(chart.description)}</desc>'
    )
    if standalone:
        head += f'<style>{STYLE}</style><rect width="100%" height="100%" style="fill:var(--paper)"/>'
    return head + "".join(parts) + "</svg>"


def _text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _frame(chart: Chart, x: Scale, y: Scale, plot: Box) -> list[str]:
    left, top, right, bottom = plot
    parts = []
    for tick in y.ticks():
        parts.append(_segment("grid", left, y(tick), right, y(tick)))
        parts.append(_text(left - 7, y(tick) + 4, chart.y.form(tick), "end"))
    for tick in x.ticks():
        parts.append(_segment("axis", x(tick), bottom, x(tick), bottom + 4))
        parts.append(_text(x(tick), bottom + 17, chart.x.form(tick), "middle"))
    parts.append(_segment("axis", left, bottom, right, bottom))
    parts.append(_text((left + right) / 2, chart.height - 8, chart.x.title, "middle"))
    turn = f'transform="translate(13 {(top + bottom) / 2:.1f}) rotate(-90)"'
    parts.append(f'<text {turn} text-anchor="middle">{escape(chart.y.title)}</text>')
    return parts


def _limits(chart: Chart, x: Scale, y: Scale, plot: Box) -> list[str]:
    left, top, right, bottom = plot
    parts = []
    for limit in chart.limits:
        if limit.axis == "y":
            at = y(limit.value)
            parts.append(_segment("limit", left, at, right, at))
            parts.append(_text(left + 4, at - 4, limit.name, "start", "halo"))
        else:
            at = x(limit.value)
            parts.append(_segment("limit", at, top, at, bottom))
            late = at > (left + right) / 2
            parts.append(
                _text(at + (-4 if late else 4), top + 10, limit.name, "end" if late else "start", "halo")
            )
    return parts


def _line(line: Line, x: Scale, y: Scale) -> str:
    if not line.points:
        return ""
    path = [f"M{x(line.points[0][0]):.1f} {y(line.points[0][1]):.1f}"]
    for value_x, value_y in line.points[1:]:
        path.append(
            f"H{x(value_x):.1f}V{y(value_y):.1f}" if line.stepped else f"L{x(value_x):.1f} {y(value_y):.1f}"
        )
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    width = ' style="stroke-width:1.2"' if line.thin else ""
    return f'<path class="line" stroke="var(--c{line.colour})"{dash}{width} d="{"".join(path)}"/>'


def _whiskers(point: Point, x: Scale, y: Scale) -> str:
    path = ""
    if point.y_interval is not None:
        at, low, high = x(point.x), y(point.y_interval[0]), y(point.y_interval[1])
        path += f"M{at:.1f} {low:.1f}V{high:.1f}M{at - 3:.1f} {low:.1f}h6M{at - 3:.1f} {high:.1f}h6"
    if point.x_interval is not None:
        at, low, high = y(point.y), x(point.x_interval[0]), x(point.x_interval[1])
        path += f"M{low:.1f} {at:.1f}H{high:.1f}M{low:.1f} {at - 3:.1f}v6M{high:.1f} {at - 3:.1f}v6"
    return f'<path class="whisker" stroke="var(--c{point.colour})" d="{path}"/>' if path else ""


def _mark(point: Point, x: float, y: float) -> str:
    return _shape(point.marker, x, y, point.colour, hollow=point.hollow, tooltip=point.tooltip or point.name)


def _shape(
    marker: Marker, x: float, y: float, colour: int, *, hollow: bool = False, tooltip: str = ""
) -> str:
    fill = "var(--paper)" if hollow else f"var(--c{colour})"
    paint = f'fill="{fill}" stroke="var(--c{colour})" stroke-width="1.6"'
    title = f"<title>{escape(tooltip)}</title>" if tooltip else ""
    if marker == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.6" {paint}>{title}</circle>'
    shapes: dict[str, str] = {
        "square": f"M{x - 4.3:.1f} {y - 4.3:.1f}h8.6v8.6h-8.6z",
        "diamond": f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z",
        "triangle": f"M{x:.1f} {y - 5.6:.1f}l5.6 10h-11.2z",
        "hexagon": f"M{x - 5.2:.1f} {y:.1f}l2.6 -4.6h5.2l2.6 4.6l-2.6 4.6h-5.2z",
        "cross": f"M{x - 5:.1f} {y - 1.7:.1f}h3.3v-3.3h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3z",
    }
    return f'<path d="{shapes[marker]}" {paint}>{title}</path>'


def _names(chart: Chart, x: Scale, y: Scale, plot: Box) -> list[str]:
    points = sorted(chart.points, key=lambda point: (point.hollow, y(point.y)))
    named = [Label(x(p.x), y(p.y), CHARACTER_WIDTH * len(p.name), p.name) for p in points]
    paths = [[(x(at), y(value)) for at, value in line.points] for line in chart.lines if not line.stepped]
    for line in chart.lines:
        if line.stepped:
            corners = [(b[0], a[1]) for a, b in pairwise(line.points)]
            knots = [
                pair for two in zip(line.points, [*corners, line.points[-1]], strict=True) for pair in two
            ]
            paths.append([(x(at), y(value)) for at, value in knots])
    for p in points:
        if p.y_interval is not None:
            paths.append([(x(p.x), y(end)) for end in p.y_interval])
        if p.x_interval is not None:
            paths.append([(x(end), y(p.y)) for end in p.x_interval])
    return [_text(left, top + 11, name, kind="name halo") for name, left, top in place(named, plot, paths)]


def _legend(chart: Chart, left: float) -> tuple[list[str], int]:
    """Return the legend and how many rows it takes: entries wrap where the next would leave the chart."""
    parts = []
    at, row = left, 0
    named = [line for line in chart.lines if line.name]
    entries: list[tuple[str, Line | tuple[int, Marker]]] = [(n, (c, m)) for n, c, m in chart.legend]
    for name, entry in entries + [(line.name, line) for line in named]:
        sample = 24.0 if isinstance(entry, Line) else 15.0
        width = sample + CHARACTER_WIDTH * len(name)
        if at > left and at + width > chart.width:
            at, row = left, row + 1
        middle = 15 + LEGEND_ROW * row
        if isinstance(entry, Line):
            dash = ' stroke-dasharray="5 4"' if entry.dashed else ""
            stroke = f'stroke="var(--c{entry.colour})"{dash}'
            parts.append(f'<path class="line" {stroke} d="M{at:.1f} {middle:.1f}h18"/>')
        else:
            parts.append(_shape(entry[1], at + 5, middle, entry[0]))
        parts.append(_text(at + sample, middle + 4, name))
        at += width + 14
    return parts, row + 1 if parts else 0
