"""Where names of marks go on a chart, so that they cover neither each other nor a mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Box = tuple[float, float, float, float]
Side = Literal["right", "left", "middle"]

LINE_HEIGHT = 14.0
MARK = 6.0
SPOTS: tuple[tuple[Side, float, float], ...] = (
    ("right", 9, -7), ("left", 9, -7), ("middle", 0, -23), ("middle", 0, 9),
    ("right", 7, -20), ("right", 7, 7), ("left", 7, -20), ("left", 7, 7),
    ("right", 14, -33), ("right", 14, 20), ("left", 14, -33), ("left", 14, 20),
)  # fmt: skip
OUTSIDE_PENALTY = 40.0
STROKE_STEP = 5.0


@dataclass(frozen=True)
class Label:
    """A mark at (x, y) pixels and its name, `width` pixels wide; an empty name is not placed."""

    x: float
    y: float
    width: float
    name: str


def place(
    labels: Sequence[Label], plot: Box, paths: Sequence[Sequence[tuple[float, float]]] = ()
) -> list[tuple[str, float, float]]:
    """Return name, left and top of each named label, chosen one by one among twelve spots around its mark.

    The spot that overlaps least with earlier names, other marks and lines wins; among equals the first.
    `plot` is the chart's inside (left, top, right, bottom); `paths` are lines through pixels.
    """
    marks = [(at.x - MARK, at.y - MARK, at.x + MARK, at.y + MARK) for at in labels]
    strokes = [box for path in paths for box in _stroke(path)]
    taken: list[Box] = []
    for index, label in enumerate(labels):
        if not label.name:
            continue
        others = taken + strokes + marks[:index] + marks[index + 1 :]
        best = min((_box(label, spot) for spot in SPOTS), key=lambda box: _badness(box, others, plot))
        taken.append(best)
    names = [label.name for label in labels if label.name]
    return [(name, box[0], box[1]) for name, box in zip(names, taken, strict=True)]


def _stroke(path: Sequence[tuple[float, float]]) -> list[Box]:
    """Return small boxes along a line, so that a name over it counts as an overlap."""
    boxes = []
    for (x1, y1), (x2, y2) in pairwise(path):
        steps = max(1, round(max(abs(x2 - x1), abs(y2 - y1)) / STROKE_STEP))
        for step in range(steps + 1):
            x, y = x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps
            boxes.append((x - 2, y - 2, x + 2, y + 2))
    return boxes


def _box(label: Label, spot: tuple[Side, float, float]) -> Box:
    side, dx, dy = spot
    left = label.x + dx
    if side == "left":
        left = label.x - dx - label.width
    elif side == "middle":
        left = label.x - label.width / 2
    return left, label.y + dy, left + label.width, label.y + dy + LINE_HEIGHT


def _badness(box: Box, others: Sequence[Box], plot: Box) -> float:
    overlaps = 0.0
    for other in others:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        if width > 0 and height > 0:
            overlaps += width * height
    beyond = sum(
        max(0.0, excess)
        for excess in (plot[0] - box[0], box[2] - plot[2] - 10, plot[1] - 8 - box[1], box[3] - plot[3])
    )
    return overlaps + OUTSIDE_PENALTY * beyond
