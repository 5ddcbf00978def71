"""P-values for "the true risk is at least epsilon": small pure functions.

Each is valid for any sample size unless it says otherwise. A small p-value is evidence that the risk is below
epsilon. Losses are i.i.d. (or drawn without replacement) in a known range.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from router.decide.scores import FloatArray

TRUNCATION = 0.75


def betting_log_capital(
    losses: FloatArray, epsilon: float, delta: float, low: float = -1.0, high: float = 1.0
) -> FloatArray:
    """Return the running log-capital [n] of a bet that the mean of `losses` is below epsilon.

    Losses lie in [low, high]. Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
    betting" (2024), the hedged capital's lower half, with the predictable plug-in bet lambda_t = min(c / (1 -
    m), sqrt(2 log(1/delta) / (n sigma2_{t-1}))).
    """
    span = high - low
    values = (np.asarray(losses, dtype=np.float64) - low) / span
    mean = (epsilon - low) / span
    n = len(values)
    if n == 0 or mean >= 1.0:
        return np.zeros(n)
    steps = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(values)) / (steps + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (steps + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets = np.minimum(TRUNCATION / (1.0 - mean), np.sqrt(2.0 * math.log(1.0 / delta) / (n * before)))
    return np.asarray(np.cumsum(np.log1p(-bets * (values - mean))))


def betting_p_value(
    losses: FloatArray, epsilon: float, delta: float, low: float = -1.0, high: float = 1.0
) -> float:
    """Return the p-value of H0: E[loss] >= epsilon.

    It is one over the largest capital ever reached (Ville's inequality). `delta` only shapes the bets (it is
    the level they are best for); the p-value is valid whatever it is.
    """
    capital = betting_log_capital(losses, epsilon, delta, low, high)
    return float(math.exp(-max(0.0, float(capital.max(initial=0.0)))))


def binomial_p_value(events: int, n: int, epsilon: float) -> float:
    """Return P(Bin(n, epsilon) <= events), the exact p-value of H0: P(event) >= epsilon."""
    if n == 0:
        return 1.0
    return float(scipy.stats.binom.cdf(events, n, epsilon))


def betting_needed_n(
    losses: FloatArray, epsilon: float, delta: float, low: float = -1.0, high: float = 1.0
) -> int | None:
    """Return about how many rows like `losses` a bet needs to pass at level delta.

    None where their mean is not below epsilon. The best constant bet grows by g = max over lambda of E[log(1
    - lambda (x - m))] a row; log(1/delta) / g rows are needed on average, and half again to pass in most
    draws.
    """
    span = high - low
    values = (np.asarray(losses, dtype=np.float64) - low) / span
    mean = (epsilon - low) / span
    if len(values) == 0 or values.mean() >= mean:
        return None
    distinct, counts = np.unique(values, return_counts=True)
    shares = counts / counts.sum()
    bets = np.linspace(0.0, TRUNCATION / (1.0 - mean), 400)[1:]
    growth = (shares * np.log1p(-bets[:, None] * (distinct - mean))).sum(axis=1).max()
    return math.ceil(1.5 * math.log(1.0 / delta) / growth) if growth > 0 else None
