"""What answering here instead of elsewhere would save, and how many rows it takes to certify it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy

from contract.formulas import Interval, wilson_interval
from router.tune.pvalues import binomial_p_value

MOST_ROWS = 1 << 24


def rows_to_certify(epsilon: float, delta: float, rate: float) -> int | None:
    """Return how many rows a disagreement rate needs to pass an exact binomial test at epsilon.

    An n with P(Bin(n, epsilon) <= ceil(rate n)) <= delta, up to rounding the smallest: the binomial p-value
    of Learn then Test (Angelopoulos et al. 2021, section 2) for one policy, seen to disagree as often as
    `rate` says. None where no number of rows is enough, as the rate is not under epsilon, or they would be
    too many.

    Raises:
        ValueError: unless 0 < epsilon < 1, 0 < delta < 1 and 0 <= rate <= 1.
    """
    if not (0 < epsilon < 1 and 0 < delta < 1 and 0 <= rate <= 1):
        raise ValueError("rows_to_certify needs 0 < epsilon < 1, 0 < delta < 1 and 0 <= rate <= 1")
    if rate >= epsilon:
        return None

    def passes(n: int) -> bool:
        return binomial_p_value(math.ceil(rate * n), n, epsilon) <= delta

    high = 1
    while not passes(high):
        high *= 2
        if high > MOST_ROWS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def poisson_interval(events: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a Poisson mean of which `events` were counted (Garwood 1936).

    Raises:
        ValueError: for a negative count, or a confidence outside (0, 1).
    """
    if events < 0 or not 0 < confidence < 1:
        raise ValueError("poisson_interval needs events >= 0 and 0 < confidence < 1")
    tail = (1 - confidence) / 2
    low = 0.0 if events == 0 else float(scipy.stats.chi2.ppf(tail, 2 * events) / 2)
    return low, float(scipy.stats.chi2.ppf(1 - tail, 2 * events + 2) / 2)


@dataclass(frozen=True)
class Savings:
    """What is saved when a share of texts is answered here.

    Attributes:
        share, share_interval: of texts that are answered without the model elsewhere.
        usd_per_1k, usd_per_1k_interval: saved; negative where answering here costs more.
        usd_per_day, usd_per_day_interval: at the traffic seen so far; None where that is unknown.
        confidence: of each interval.
    """

    share: float
    share_interval: Interval
    usd_per_1k: float
    usd_per_1k_interval: Interval
    usd_per_day: float | None
    usd_per_day_interval: Interval | None
    confidence: float


def savings(
    answered: int,
    n: int,
    *,
    usd_elsewhere_per_1k: float,
    usd_here_per_1k: float,
    texts: int = 0,
    days: float = 0.0,
    confidence: float = 0.95,
) -> Savings:
    """Return what is saved when `answered` of n held-out texts were answered here.

    Every text costs what the stages here do, and those that go on cost the model elsewhere too, so that
    1,000 texts save share x elsewhere - here. The share has Wilson's interval (1927), the traffic Garwood's
    (1936); a day's figure is a product of the two, so each has half of what may go wrong (Bonferroni).

    Args:
        answered: texts that need not go elsewhere, of the n.
        n: texts that were tried, none of which chose the thresholds.
        usd_elsewhere_per_1k: what the model elsewhere takes for 1,000 texts.
        usd_here_per_1k: what the stages here take for 1,000 texts.
        texts, days: the traffic: so many texts in so many days; 0 days: unknown.
        confidence: of each interval.

    Raises:
        ValueError: as `wilson_interval`.
    """
    share = answered / n if n else 0.0
    interval = wilson_interval(answered, n, confidence)

    def per_1k(p: float) -> float:
        return p * usd_elsewhere_per_1k - usd_here_per_1k

    per_day, day_interval = None, None
    if days > 0:
        half = 1 - (1 - confidence) / 2
        shares, counts = wilson_interval(answered, n, half), poisson_interval(texts, half)
        corners = [per_1k(p) * count / days / 1000 for p in shares for count in counts]
        per_day, day_interval = per_1k(share) * texts / days / 1000, (min(corners), max(corners))
    return Savings(
        share=share,
        share_interval=interval,
        usd_per_1k=per_1k(share),
        usd_per_1k_interval=(per_1k(interval[0]), per_1k(interval[1])),
        usd_per_day=per_day,
        usd_per_day_interval=day_interval,
        confidence=confidence,
    )
