"""How numbers read."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from report.format import figures as f


def test_significant_digits_without_exponents() -> None:
    """Small and large numbers are written out, and what is not known is a dash."""
    assert f.significant(12345.6) == "12,346"
    assert f.significant(0.0004321) == "0.000432"
    assert f.significant(-1.5, 2) == "−1.5"
    assert f.significant(0.0) == "0"
    assert f.significant(None) == f.significant(math.nan) == "–"
    assert f.significant(math.inf) == "∞"


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_significant_is_within_half_a_digit(value: float) -> None:
    """What is written differs from the value by at most half of its third digit."""
    written = float(f.significant(value).replace(",", ""))
    assert abs(written - value) <= 0.5 * 10 ** (math.floor(math.log10(value)) - 2) * 1.0001


def test_plain_drops_zeros_that_say_nothing() -> None:
    """Rates and ticks are short."""
    assert f.plain(40.0) == "40"
    assert f.plain(0.5) == "0.5"
    assert f.plain(100.0) == "100"


def test_percentages_and_points_carry_their_interval() -> None:
    """Fractions become percentages; differences become signed points, never a signed zero."""
    assert f.percent_interval(0.9613, (0.952, 0.968)) == "96.1% [95.2, 96.8]"
    assert f.points_interval(-0.012, (-0.02, 0.0)) == "−1.2 [−2.0, 0.0]"
    assert f.points(-0.00001) == "0.0"
    assert f.percent(None) == "–"


def test_other_units() -> None:
    """Sizes, durations, ratios and money take the unit that reads best."""
    assert f.size(90_900_000) == "90.9 MB"
    assert f.duration(94) == "94.0 s"
    assert f.duration(249) == "4.15 min"
    assert f.times(4.23) == "4.2×"
    assert f.money(0.5) == "$0.500"
    assert f.money(12345.6) == "$12,346"
    assert f.money(-3.0) == "−$3.00"
    assert f.usd_per_million(0.0001) == 0.1
    assert f.usd_per_million(None) is None
