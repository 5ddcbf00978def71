"""The verdict of a trial at any moment: is the candidate no worse than X, surely worse, or not known yet.

One text gives X = 1[live right] - 1[candidate right], with the reference's answer for the truth; so X is 0
wherever both give the same answer, and the reference need not be asked there. A differing text that is put to
the reference by lot, with probability q, counts X / q, and 0 where it was not (Horvitz and Thompson 1952).
By agreement alone, X is 1 where the arms differ: at least the drop, whatever the truth.

Evidence is wealth from bets against a hypothesis (Waudby-Smith and Ramdas 2024): the mean over fixed stakes b
of the product of 1 + l (m - X), l = b / (high - m), against "the mean is m or more", and likewise downwards.
Stakes that never move make the product depend on how often each value came and not on the order: counts from
many replicas are enough, and anybody can do the sum again. They also make the verdict hold while traffic
drifts: since 1 + y <= exp(y), the product is below a martingale of mean 1 whenever the conditional means
average m or more so far, so the chance of ever reaching 1 / delta then is delta (Ville 1939).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from contract.trial import SLOW_SHARE, ArmCounts, PairCounts, Reason, Verdict, VerdictRule
from router.decide.scores import FloatArray

METHOD = "fixed-stakes betting, mixture of 12, counts"
STAKES = np.geomspace(0.008, 0.98, 12)
_BISECTIONS = 50

Values = Sequence[tuple[float, int]]
"""Values of X, each with how often it came."""


def log_wealth_below(values: Values, mean: float, high: float) -> float:
    """Return log-wealth against "the mean is `mean` or more", for values of at most `high` > `mean`."""
    return _mixture(values, mean, STAKES / (high - mean), -1.0)


def log_wealth_above(values: Values, mean: float, low: float) -> float:
    """Return log-wealth against "the mean is `mean` or less", for values of at least `low` < `mean`."""
    return _mixture(values, mean, STAKES / (mean - low), 1.0)


def upper_bound(values: Values, low: float, high: float, delta: float) -> float:
    """Return the least mean that is refuted from above at level delta; `high` while none is.

    One-sided, at any time, for a mean that stays the same.
    """
    return _cross(lambda m: log_wealth_below(values, m, high) >= -math.log(delta), low, high, above=True)


def lower_bound(values: Values, low: float, high: float, delta: float) -> float:
    """Return the greatest mean that is refuted from below at level delta; `low` while none is."""
    return _cross(lambda m: log_wealth_above(values, m, low) >= -math.log(delta), low, high, above=False)


def decide(rule: VerdictRule, pairs: PairCounts, candidate: ArmCounts) -> tuple[Reason, float, float]:
    """Return what is proven, and the log-wealth for "no worse" and for "worse".

    A comparison that was begun and not finished counts as the worst that it could be: against promotion as
    the candidate's fault, against withdrawal as its success. Each way of being wrong (promoted though worse,
    withdrawn though not, stopped by a guardrail though within it) has probability 1 - confidence at most
    over the whole trial.
    """
    needed = -math.log(1 - rule.confidence)
    pessimist, optimist, low, high = _values(rule, pairs)
    no_worse = log_wealth_below(pessimist, rule.no_worse_than, high)
    worse = log_wealth_above(optimist, rule.no_worse_than, low)
    reason: Reason = "worse" if worse >= needed else "no_worse" if no_worse >= needed else "open"
    return _guardrail(rule, candidate, needed) or reason, no_worse, worse


def judge(rule: VerdictRule, pairs: PairCounts, candidate: ArmCounts) -> Verdict:
    """Return the verdict on a candidate, as `decide`, with the estimate of the drop and its bounds."""
    delta = 1 - rule.confidence
    reason, no_worse, worse = decide(rule, pairs, candidate)
    pessimist, optimist, low, high = _values(rule, pairs)
    resolved = pairs.n - pairs.unresolved
    total = sum(value * count for value, count in pessimist) - high * pairs.unresolved
    return Verdict(
        decision="undecided" if reason == "open" else "promote" if reason == "no_worse" else "withdraw",
        reason=reason,
        method=METHOD,
        n=pairs.n,
        drop=total / resolved if resolved else None,
        drop_low=_fraction(lower_bound(optimist, low, high, delta)),
        drop_high=_fraction(upper_bound(pessimist, low, high, delta)),
        log_no_worse=no_worse,
        log_worse=worse,
        needed=-math.log(delta),
    )


def _fraction(bound: float) -> float:
    return min(1.0, max(-1.0, bound))


def _values(rule: VerdictRule, pairs: PairCounts) -> tuple[Values, Values, float, float]:
    """Return the values at their worst and at their best, and the least and the greatest that there are."""
    low, high, known = 0.0, 1.0, [(0.0, pairs.same), (1.0, pairs.differ)]
    if rule.measured_by == "reference":
        high = 1.0 / rule.audit_share
        low = -high
        known = [(0.0, pairs.same + pairs.unasked + pairs.neither), (high, pairs.worse), (low, pairs.better)]
    return [*known, (high, pairs.unresolved)], [*known, (low, pairs.unresolved)], low, high


def _guardrail(rule: VerdictRule, candidate: ArmCounts, needed: float) -> Reason | None:
    """Return the guardrail that the candidate surely breaks, if any."""
    asked = candidate.requests + candidate.failed
    if rule.max_error_rate is not None:
        failures = [(0.0, candidate.requests), (1.0, candidate.failed)]
        if asked and log_wealth_above(failures, rule.max_error_rate, 0.0) >= needed:
            return "errors"
    if rule.objective_ms is not None:
        late = [(0.0, candidate.requests - candidate.slow), (1.0, candidate.slow)]
        if candidate.requests and log_wealth_above(late, SLOW_SHARE, 0.0) >= needed:
            return "slow"
    return None


def _mixture(values: Values, mean: float, rates: FloatArray, sign: float) -> float:
    """Return the log of the mean over `rates` of the product of 1 + sign * rate * (X - mean)."""
    logs = np.zeros(len(rates))
    for value, count in values:
        if count:
            logs += count * np.log1p(sign * rates * (value - mean))
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


def _cross(refuted: Callable[[float], bool], low: float, high: float, *, above: bool) -> float:
    """Return where refutation begins, coming from the end that is refuted first."""
    inside, outside = (low, high) if above else (high, low)
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside
