"""How urgent a request is, in the numbers of the Open Inference Protocol's `priority` as Triton means it."""

from __future__ import annotations

HIGHEST_PRIORITY = 1
DEFAULT_PRIORITY = 5
LOWEST_PRIORITY = 9
OFF_PATH_PRIORITY = 10
"""Of work that no client waits for: below all that clients can ask for."""


def level_of(asked: int) -> int:
    """Return the level of a priority that was asked for: 0 is the default, 1 the highest, 9 the lowest."""
    if asked == 0:
        return DEFAULT_PRIORITY
    return asked if asked < LOWEST_PRIORITY else LOWEST_PRIORITY
