"""How figures are written for people: one function per unit, one dash for what is not known."""

from __future__ import annotations

import math

Interval = tuple[float, float]

UNKNOWN = "–"


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, thousands grouped, never in E notation."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}".replace("-", "−")


def plain(value: float | None, digits: int = 3) -> str:
    """Return a number as `significant` does, without zeros that end its decimals: for rates and ticks."""
    text = significant(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def usd_per_million(usd_per_1k: float | None) -> float | None:
    """Return a price per 1,000 as one per million, which people can read."""
    return None if usd_per_1k is None else 1000 * usd_per_1k


def percent(value: float | None, decimals: int = 1) -> str:
    """Return a fraction as a percentage."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{100 * value:.{decimals}f}%".replace("-", "−")


def points(value: float | None, decimals: int = 1) -> str:
    """Return a difference of fractions as signed percentage points."""
    if value is None or math.isnan(value):
        return UNKNOWN
    text = f"{100 * value:+.{decimals}f}"
    return ("0." + "0" * decimals if float(text) == 0 else text).replace("-", "−")


def percent_interval(value: float | None, interval: Interval | None, decimals: int = 1) -> str:
    """Return a fraction and its interval as percentages: `96.1% [95.2, 96.8]`."""
    if value is None or interval is None:
        return percent(value, decimals)
    low, high = (f"{100 * end:.{decimals}f}".replace("-", "−") for end in interval)
    return f"{percent(value, decimals)} [{low}, {high}]"


def points_interval(value: float | None, interval: Interval | None, decimals: int = 1) -> str:
    """Return a difference and its interval in percentage points: `−1.2 [−2.0, −0.4]`."""
    if value is None or interval is None:
        return points(value, decimals)
    return f"{points(value, decimals)} [{points(interval[0], decimals)}, {points(interval[1], decimals)}]"


def with_interval(value: float | None, interval: Interval | None, digits: int = 3) -> str:
    """Return a number and its interval: `12.4 [11.9, 13.1]`."""
    if value is None or interval is None:
        return significant(value, digits)
    low, high = (significant(end, digits) for end in interval)
    return f"{significant(value, digits)} [{low}, {high}]"


def times(value: float | None) -> str:
    """Return a ratio: `4.2×`."""
    return UNKNOWN if value is None else f"{significant(value, 2 if abs(value) < 100 else 3)}×"


def size(n: float | None) -> str:
    """Return a number of bytes in decimal units."""
    if n is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n) < 1000 or unit == "GB":
            return f"{significant(n, 3)} {unit}"
        n /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float | None) -> str:
    """Return a duration in the unit that reads best."""
    if seconds is None:
        return UNKNOWN
    if seconds < 120:
        return f"{significant(seconds, 2 if seconds < 10 else 3)} s"
    if seconds < 7200:
        return f"{significant(seconds / 60, 3)} min"
    return f"{significant(seconds / 3600, 3)} h"


def money(usd: float | None) -> str:
    """Return an amount of US dollars: small ones with significant digits, large ones whole."""
    if usd is None:
        return UNKNOWN
    if math.isinf(usd):
        return "∞"
    sign = "−" if usd < 0 else ""
    return f"{sign}${significant(abs(usd), 3)}" if abs(usd) < 1000 else f"{sign}${abs(usd):,.0f}"


def short_hash(sha256: str) -> str:
    """Return the first 12 characters of a hash, which is what people compare."""
    return sha256[:12] or UNKNOWN
