"""What today's traffic says of a policy with cells, from first-stage answers without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import scipy

from contract.mix import Mix, MixBound
from router.decide.scores import FloatArray


@dataclass(frozen=True)
class ShareToday:
    """How large the part that may grow is today: an interval and the likeliest, all without labels.

    Attributes:
        n: texts seen.
        most: the share up to which the policy is certified.
        covered: True where the interval lies below `most`, False where it lies above, None where it does not
            tell.
    """

    n: int
    low: float
    likeliest: float
    high: float
    most: float
    covered: bool | None


def today(
    mix: Mix, predicted: Sequence[str], score: FloatArray, threshold: float, delta: float = 0.1
) -> MixBound | ShareToday:
    """Return today's bound, or of cells by label today's share of the part that may grow.

    Args:
        predicted: what the first stage said of today's texts, as text.
        score: [N] how sure it was.
        threshold: of the first stage; only cells by label, whose policies have no rules per class, use it.
        delta: level of the interval of a share.
    """
    if mix.by != "label":
        return mix.under(mix.counts(predicted, score))
    return share_today(mix, len(score), int((score >= threshold).sum()), delta)


def share_today(mix: Mix, n: int, answered: int, delta: float) -> ShareToday:
    """Return today's share of the part that may grow, from how many of n texts the first stage answered.

    If the part's texts and the other texts are answered as often as when certified, at rates a and b, today's
    rate is s a + (1 - s) b, so s = (b - rate) / (b - a) (label shift; Lipton, Wang and Smola 2018). The
    interval takes each of the three rates at the worse end of its own, exact and at delta / 3.

    Raises:
        ValueError: the cells are not by label.
    """
    if mix.by != "label" or mix.most is None:
        raise ValueError("only cells by label have a part that may grow")
    part, rest = mix.cells
    level = delta / 3
    a_low, a_high = _interval(round(part.answered * part.n), part.n, level)
    b_low, b_high = _interval(round(rest.answered * rest.n), rest.n, level)
    low, high = _interval(answered, n, level)
    least = _share(a_low, b_low, high) if b_low > a_low else 0.0
    most = _share(a_high, b_high, low) if b_high > a_high else 1.0
    rate = answered / n if n else 0.0
    known = n > 0 and rest.answered > part.answered
    middle = _share(part.answered, rest.answered, rate) if known else (least + most) / 2
    if b_low <= a_high:
        least, most = 0.0, 1.0
    return ShareToday(
        n=n,
        low=min(least, middle),
        likeliest=middle,
        high=max(most, middle),
        most=mix.most,
        covered=True if most <= mix.most else False if least > mix.most else None,
    )


def _share(a: float, b: float, rate: float) -> float:
    return min(1.0, max(0.0, (b - rate) / (b - a)))


def _interval(hits: int, n: int, level: float) -> tuple[float, float]:
    """Return the exact interval of a rate (Clopper and Pearson 1934)."""
    low = float(scipy.special.betaincinv(hits, n - hits + 1, level / 2)) if hits else 0.0
    high = float(scipy.special.betaincinv(hits + 1, n - hits, 1 - level / 2)) if hits < n else 1.0
    return low, high
