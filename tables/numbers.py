"""Numbers as the cells of text files write them, read by one rule for every command."""

from __future__ import annotations

import re

_DECIMAL_COMMA = re.compile(r"[01]?,\d+")
_MISSING = frozenset({"", "na", "nan", "null", "none", "n/a"})


def is_missing(written: str) -> bool:
    """Return whether a cell says that there is no number."""
    return written.strip().lower() in _MISSING


def number_in(written: str) -> float:
    """Return the number of a cell; a share may have a decimal comma. Raises ValueError."""
    cell = written.strip()
    return float(cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell)


def numbers_in(written: str) -> list[float]:
    """Return the numbers of a cell such as "[0.1, 2.5]" or "[0.1 2.5]". Raises ValueError."""
    return [float(part) for part in written.strip(" []()").replace(",", " ").split()]
