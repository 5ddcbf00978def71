"""How often a simulated promise may break, and how many draws a run takes: few by default, all when asked."""

from __future__ import annotations

import math

FEW = 10
FULL = 200


def most(draws: int, delta: float) -> int:
    """Return how many of `draws` may break a promise that holds but for `delta`: two standard errors above.

    With delta 0.1 that is 2 of 10 and 28 of 200. A fault that breaks half of the promises, as uncertified
    thresholds do, is found by 10 draws 19 times in 20; 200 draws find one that breaks a fifth of them.
    """
    return math.floor(delta * draws + 2 * math.sqrt(delta * (1 - delta) * draws))
