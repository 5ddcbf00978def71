"""The exact unconditional test of a loss that is -1, 0 or 1 on every row, as an accuracy drop is.

A row counts +1 where only the reference is right, -1 where only the other answer is, else 0.
The three counts are trinomial, so the chance of any set of them is known but for one nuisance: how often the
loss is not 0.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy

from router.decide.scores import FloatArray, IntArray

BETA_SHARE = 0.01
NUISANCES = 16
FEW_NUISANCES = 8
FINER = 5
ROUNDS = 3
MANY_ROWS = 20_000
SLACK = 1e-5
"""Added for what the windows of counts leave out and the grid of nuisances may miss."""


def trinomial_p_value(plus: int, minus: int, n: int, epsilon: float, delta: float) -> float:
    """Return the p-value of H0: P(+1) - P(-1) >= epsilon, given how many of n losses were +1 and -1.

    It is the largest chance, over a Clopper-Pearson interval of P(+1) + P(-1) at level beta = delta / 100, of
    a score statistic (Tango 1998) as far below epsilon as the observed one, plus beta (Berger and Boos 1994).
    It is valid at any level and any n; `delta` only sets beta. Counts that do not speak against H0 give 1.

    Args:
        plus, minus: counts of +1 and -1, together at most n.
        n: rows.
        epsilon: in [0, 1).
        delta: the level that the p-value is meant for.
    """
    return _p_value(int(plus), int(minus), int(n), float(epsilon), float(delta))


def trinomial_needed_n(losses: FloatArray, epsilon: float, delta: float) -> int | None:
    """Return about how many rows like `losses` (each -1, 0 or 1) pass at level delta in three draws of four.

    None where their mean is not below epsilon. By the normal approximation, and no fewer than where every
    loss is 0.
    """
    gap = epsilon - float(losses.mean()) if len(losses) else 0.0
    if gap <= 0.0:
        return None
    spread = max(float((losses**2).mean()), epsilon) - epsilon**2
    quantiles = scipy.special.ndtri(1.0 - delta) + scipy.special.ndtri(0.75)
    fewest = math.log(delta) / math.log1p(-epsilon) if epsilon > 0.0 else 1.0
    return math.ceil(max(fewest, spread * (quantiles / gap) ** 2))


@functools.lru_cache(maxsize=65_536)
def _p_value(plus: int, minus: int, n: int, epsilon: float, delta: float) -> float:
    if n == 0 or plus - minus >= epsilon * n:
        return 1.0
    discordant = plus + minus
    observed = float(score_statistic(np.array([plus]), np.array([discordant]), n, epsilon)[0])
    beta = BETA_SHARE * delta
    nuisances = _nuisances(discordant, n, epsilon, beta)
    if not len(nuisances):
        return beta
    tail = _Tail(observed, n, epsilon, nuisances)
    worst = 0.0
    for _ in range(ROUNDS):
        chances = [tail.chance(q) for q in nuisances.tolist()]
        worst, at = max(worst, *chances), int(np.argmax(chances))
        nuisances = np.linspace(nuisances[max(0, at - 1)], nuisances[min(at + 1, len(chances) - 1)], FINER)
    return min(1.0, worst + SLACK + beta)


def score_statistic(plus: IntArray, discordant: IntArray, n: int, epsilon: float) -> FloatArray:
    """Return (n epsilon - plus + minus) / sqrt(n (q - epsilon^2)) for arrays of counts.

    q is the likeliest P(+1) + P(-1) where P(+1) - P(-1) is epsilon (Tango 1998, equation 5).
    """
    minus = discordant - plus
    half = plus * (1.0 + epsilon) + minus * (1.0 - epsilon) - 2.0 * n * epsilon
    root = np.sqrt(half**2 + 8.0 * n * minus * epsilon * (1.0 - epsilon))
    likeliest = (half + root) / (2.0 * n) + epsilon
    spread = np.sqrt(n * np.maximum(likeliest - epsilon**2, 1e-300))
    return np.asarray((n * epsilon - (plus - minus)) / spread)


def _nuisances(discordant: int, n: int, epsilon: float, beta: float) -> FloatArray:
    """Return the grid of P(+1) + P(-1) [Q] to try: that part of its interval which is at least epsilon.

    It is even where the chances are: in asin(sqrt(q)), and in sqrt(q - epsilon), where P(-1) is nearly 0.
    """
    low = scipy.special.betaincinv(discordant, n - discordant + 1, beta / 2) if discordant else 0.0
    high = scipy.special.betaincinv(discordant + 1, n - discordant, 1 - beta / 2) if discordant < n else 1.0
    low = max(float(low), epsilon)
    if low > high:
        return np.zeros(0)
    size = NUISANCES if n <= MANY_ROWS else FEW_NUISANCES
    arcs = np.sin(np.linspace(math.asin(math.sqrt(low)), math.asin(math.sqrt(high)), size)) ** 2
    roots = epsilon + np.linspace(math.sqrt(low - epsilon), math.sqrt(high - epsilon), size // 2) ** 2
    return np.unique(np.clip(np.concatenate([arcs, roots]), low, high))


class _Tail:
    """The counts that speak as much against H0 as those observed, and how likely they are."""

    def __init__(self, observed: float, n: int, epsilon: float, nuisances: FloatArray) -> None:
        self.n, self.epsilon = n, epsilon
        self.first, last = _window(n, float(nuisances[0]))[0], _window(n, float(nuisances[-1]))[1]
        self.discordant = np.arange(self.first, last + 1)
        self.most_plus = _most_plus(self.discordant, observed, n, epsilon)
        log = scipy.special.gammaln
        self.log_ways = log(n + 1) - log(self.discordant + 1) - log(n - self.discordant + 1)

    def chance(self, nuisance: float) -> float:
        """Return it where P(+1) - P(-1) is epsilon and P(+1) + P(-1) the nuisance, but for 1e-8."""
        low, high = _window(self.n, nuisance)
        part = slice(low - self.first, high + 1 - self.first)
        count, most = self.discordant[part], self.most_plus[part]
        share = 1.0 if nuisance <= self.epsilon else min(1.0, (1.0 + self.epsilon / nuisance) / 2.0)
        below = np.where(most < 0, 0.0, scipy.special.bdtr(np.maximum(most, 0), count, share))
        below[most >= count] = 1.0
        log = self.log_ways[part] + scipy.special.xlogy(count, nuisance)
        return float((np.exp(log + scipy.special.xlog1py(self.n - count, -nuisance)) * below).sum())


def _window(n: int, nuisance: float) -> tuple[int, int]:
    """Return counts of discordant rows outside which lies less than 1e-8, by Bernstein's inequality."""
    reach = 6.5 * math.sqrt(n * nuisance * (1.0 - nuisance)) + 25.0
    return max(0, math.floor(n * nuisance - reach)), min(n, math.ceil(n * nuisance + reach))


def _most_plus(discordant: IntArray, observed: float, n: int, epsilon: float) -> IntArray:
    """Return per count of discordant rows the most +1 that are as extreme as what was observed, -1 for none.

    The statistic falls as +1 take the place of -1, so it is found by bisection.
    """
    least = observed - 1e-9 * max(1.0, abs(observed))
    low = np.full(len(discordant), -1, dtype=np.int64)
    high = discordant.copy()
    while (low < high).any():
        middle = (low + high + 1) // 2
        reached = score_statistic(middle, discordant, n, epsilon) >= least
        low, high = np.where(reached, middle, low), np.where(reached, high, middle - 1)
    return low
