"""What a chart shows: marks with error bars, lines, limits, axes and a legend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from report.format.figures import plain

Interval = tuple[float, float]
Marker = Literal["circle", "square", "diamond", "triangle", "hexagon", "cross"]


@dataclass(frozen=True)
class Point:
    """One mark. `hollow` says that something beats it; `name` is drawn beside it where it is not empty."""

    x: float
    y: float
    name: str = ""
    colour: int = 0
    marker: Marker = "circle"
    hollow: bool = False
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    tooltip: str = ""


@dataclass(frozen=True)
class Line:
    """A line through (x, y) pairs in order; `stepped` keeps y until the next x."""

    points: tuple[tuple[float, float], ...]
    name: str = ""
    colour: int = 0
    dashed: bool = False
    stepped: bool = False
    thin: bool = False


@dataclass(frozen=True)
class Limit:
    """A dotted line across the chart at a value that matters, such as an objective."""

    value: float
    name: str
    axis: Literal["x", "y"] = "y"


@dataclass(frozen=True)
class Axis:
    """What an axis shows and how its numbers read."""

    title: str
    log: bool = False
    form: Callable[[float], str] = field(default=plain)
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """Everything a chart shows. `description` says in words what the picture says (its alternative text)."""

    key: str
    title: str
    description: str
    x: Axis
    y: Axis
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    limits: tuple[Limit, ...] = ()
    legend: tuple[tuple[str, int, Marker], ...] = ()
    width: int = 480
    height: int = 330
