"""Scales: from values to pixels, with round values to write on an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from report.format.chart import Axis, Chart
from report.format.figures import percent


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value, kept within the axis."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values inside the scale, between three and about seven of them."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def percent_form(span: float) -> Callable[[float], str]:
    """Return how to write a fraction on an axis of that span: with decimals only where ticks need them."""
    decimals = 0 if span >= 0.04 else 1 if span >= 0.004 else 2
    return lambda value: percent(value, decimals)


def fit(chart: Chart, axis: Axis, which: Literal["x", "y"], start: float, end: float) -> Scale:
    """Return the scale on which all that a chart shows has room, from one pixel to another."""
    values: list[float] = []
    for point in chart.points:
        values += [point.x if which == "x" else point.y]
        values += list((point.x_interval if which == "x" else point.y_interval) or ())
    for line in chart.lines:
        values += [pair[0] if which == "x" else pair[1] for pair in line.points]
    values += [limit.value for limit in chart.limits if limit.axis == which]
    values = [v for v in values if math.isfinite(v) and (not axis.log or v > 0)] or [1.0, 2.0]
    low, high = min(values), max(values)
    if axis.log:
        if high / low < 1.5:
            low, high = low / 1.5, high * 1.5
        pad = (high / low) ** 0.07
        low, high = low / pad, high * pad
    else:
        pad = 0.07 * (high - low) or max(abs(high) * 0.05, 1e-6)
        low, high = low - pad, high + pad
    low = low if axis.low is None else axis.low
    high = high if axis.high is None else axis.high
    return Scale(low, max(high, low + 1e-9), start, end, axis.log)


def _linear_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    multiples = (1, 2, 5) if decades < 2.2 else (1, 3) if decades < 3.5 else (1,)
    ticks = [
        m * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for m in multiples
        if low <= m * 10.0**power <= high
    ]
    return ticks if len(ticks) >= 3 else _linear_ticks(low, high)
