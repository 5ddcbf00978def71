"""Upper bounds on the mean of a loss of -1, 0 or 1, of one cell and of a mix of two."""

from __future__ import annotations

import functools

import scipy

from router.tune.pvalues import binomial_p_value
from router.tune.trinomial import trinomial_p_value

STEPS = 24
DEPTH = 14
SMALLEST = 1e-6


def p_value(plus: int, minus: int, n: int, mean: float, level: float) -> float:
    """Return the exact p-value of H0: E[loss] >= `mean`; where no loss is -1 it is binomial.

    No loss is above 1 or below -1: beyond that, and below 0, where nothing is tested, it is 0 and 1.
    """
    if mean > 1.0:
        return 0.0
    if mean <= 0.0:
        return 1.0
    if minus == 0:
        return binomial_p_value(plus, n, mean)
    return trinomial_p_value(plus, minus, n, min(mean, 1.0 - 1e-9), level)


@functools.lru_cache(maxsize=16_384)
def upper_bound(plus: int, minus: int, n: int, level: float) -> float:
    """Return the smallest mean in [0, 1] that is refuted at `level`, from above; 1 while none is.

    The true mean is above it with probability `level` at most. Without a loss of -1 it is Clopper and
    Pearson's; else the trinomial test is inverted by bisection, which ends on the refuted side.
    """
    if n == 0 or plus >= n:
        return 1.0
    if minus == 0:
        return float(scipy.special.betaincinv(plus + 1, n - plus, 1.0 - level))
    low, high = max(0.0, (plus - minus) / n), 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if p_value(plus, minus, n, middle, level) <= level:
            high = middle
        else:
            low = middle
    return high


Counts = tuple[int, int, int]
"""How many rows counted +1 and -1, and how many there are."""


def grown_passes(grown: Counts, rest: Counts, share: float, epsilon: float, level: float) -> bool:
    """Whether H0 falls: the mean loss is epsilon or more where a part of the traffic has this `share`.

    With r the mean losses of both parts, H0 says share r_grown + (1 - share) r_rest >= epsilon. It falls when
    no pair of losses on that line survives: each is tested at level / 2, so that a pair which is true is
    refuted with probability `level` at most (Bonferroni). The first part's upper bound names the one pair to
    try: below it r_rest lies higher and is refuted too, above it r_grown is.
    """
    if share <= 0.0:
        return p_value(*rest, epsilon, level) <= level
    if share >= 1.0:
        return p_value(*grown, epsilon, level) <= level
    most = upper_bound(*grown, level / 2)
    left = (epsilon - share * most) / (1.0 - share)
    return left > 0.0 and p_value(*rest, left, level / 2) <= level / 2


def grown_p_value(grown: Counts, rest: Counts, share: float, epsilon: float) -> float:
    """Return the smallest level, to within a thousandth of itself, at which `grown_passes`; 1 for none."""
    low, high = SMALLEST, 1.0
    if not grown_passes(grown, rest, share, epsilon, high):
        return 1.0
    for _ in range(DEPTH):
        middle = (low * high) ** 0.5
        if grown_passes(grown, rest, share, epsilon, middle):
            high = middle
        else:
            low = middle
    return high
