"""Charts: scales, ticks, and names that keep clear of each other."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from report.format.chart import Axis, Chart, Limit, Line, Point
from report.format.labels import Label, place
from report.format.scales import Scale
from report.format.svg import draw

PLOT = (58.0, 14.0, 466.0, 284.0)


@given(
    st.floats(min_value=1e-4, max_value=1e4),
    st.floats(min_value=1.6, max_value=1e5),
    st.booleans(),
)
def test_ticks_are_round_few_and_inside(low: float, factor: float, log: bool) -> None:
    """Any scale has between two and twelve ticks, in order, none outside."""
    scale = Scale(low, low * factor, 0, 400, log)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert ticks == sorted(ticks)
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)


def test_scale_maps_ends_to_ends_and_clips() -> None:
    """The ends of the values lie on the ends of the axis; what is outside is drawn at the edge."""
    scale = Scale(1, 100, 10, 210, log=True)
    assert scale(1) == 10
    assert math.isclose(scale(10), 110)
    assert scale(1000) == scale(100) == 210


@given(
    st.lists(
        st.tuples(st.floats(80, 440), st.floats(30, 270), st.text("abcdefgh-", min_size=1, max_size=14)),
        min_size=1,
        max_size=8,
    )
)
def test_every_name_is_placed_beside_its_mark(given_points: list[tuple[float, float, str]]) -> None:
    """No name is lost, and each starts within reach of its mark."""
    labels = [Label(x, y, 6.1 * len(name), name) for x, y, name in given_points]
    placed = place(labels, PLOT)
    assert [name for name, _, _ in placed] == [label.name for label in labels]
    for (_, left, top), label in zip(placed, labels, strict=True):
        assert left - 15 <= label.x <= left + label.width + 15
        assert abs(top + 7 - label.y) <= 34


def test_two_close_marks_get_names_that_do_not_overlap() -> None:
    """Neighbours give way."""
    labels = [Label(200, 150, 60, "teacher"), Label(206, 153, 60, "student")]
    (_, left_1, top_1), (_, left_2, top_2) = place(labels, PLOT)
    apart = abs(top_1 - top_2) >= 14 or left_1 + 60 <= left_2 or left_2 + 60 <= left_1
    assert apart


def test_a_name_avoids_a_line() -> None:
    """A line to the right pushes the name elsewhere."""
    ((_, left, top),) = place([Label(200, 150, 60, "teacher")], PLOT, [[(200, 150), (400, 150)]])
    assert not (left > 200 and top < 150 < top + 14)


def test_drawing_is_valid_xml_with_hostile_names() -> None:
    """Whatever a variant is called, the picture parses and shows the name as text."""
    name = "<b>&\"'"
    chart = Chart(
        "key",
        name,
        name,
        Axis(name, log=True),
        Axis("y"),
        points=(Point(1, 2, name, y_interval=(1, 3), x_interval=(0.5, 2)), Point(3, 4, "", hollow=True)),
        lines=(Line(((1, 2), (3, 4)), name, dashed=True, stepped=True), Line((), "empty")),
        limits=(Limit(2.0, name), Limit(2.0, name, "x")),
        legend=((name, 1, "cross"),),
    )
    for standalone in (True, False):
        root = ElementTree.fromstring(draw(chart, standalone=standalone))
        texts = [element.text for element in root.iter() if element.tag.endswith("text")]
        assert texts.count(name) >= 3


def test_equal_values_still_have_an_axis() -> None:
    """One point, or none, is drawn on an axis that is not empty."""
    for points in ((), (Point(0.5, 0.5),), (Point(0.5, 0.5), Point(0.5, 0.5))):
        text = draw(Chart("k", "t", "d", Axis("x", log=True), Axis("y"), points=points))
        assert "nan" not in text
        assert ElementTree.fromstring(text) is not None


def test_long_legends_wrap() -> None:
    """Entries that do not fit start another row, inside the picture."""
    lines = tuple(Line(((1, 1), (2, 2)), f"a rather long name {i}", i) for i in range(5))
    text = draw(Chart("k", "t", "d", Axis("x"), Axis("y"), lines=lines))
    rows = {y for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)" text-anchor="start">a rather', text)}
    assert len(rows) > 1
