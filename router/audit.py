"""Auditing live traffic: which accepted answers to check against the reference, and what the checks say of
the drop.

A request that the cascade accepted is audited with probability q, known before its answer is checked. The
loss D of an audited
request is 1[cascade wrong] - 1[reference wrong] (or the disagreement, where no truth comes in); D / q, and
0 for a request that
was not audited, is an unbiased estimate of D (Horvitz and Thompson 1952). Escalated traffic says nothing
about accepted traffic.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from router.scores import FloatArray

GRID_POINTS = 401
GRID = np.linspace(-1.0, 1.0, GRID_POINTS)
PRIOR_SPREAD = 0.05


def audit_probabilities(disagreement: FloatArray, rate: float, q_min: float) -> FloatArray:
    """Return audit probabilities [N] proportional to sqrt(P(disagree | score)), at least q_min, of mean
    `rate`.

    The square root gives the least variance of the estimate for a given number of audits (Neyman allocation
    of D / q).

    Raises:
        ValueError: unless 0 < q_min <= rate <= 1.
    """
    if not 0.0 < q_min <= rate <= 1.0:
        raise ValueError("audit_probabilities needs 0 < q_min <= rate <= 1")
    shape = np.sqrt(np.clip(disagreement, 1e-8, 1.0))
    low, high = 0.0, 1.0 / float(shape.min())
    for _ in range(60):
        middle = (low + high) / 2
        if float(np.clip(middle * shape, q_min, 1.0).mean()) < rate:
            low = middle
        else:
            high = middle
    return np.asarray(np.clip(low * shape, q_min, 1.0))


@dataclass(frozen=True)
class DropEstimate:
    """What audits have said so far of the mean drop over all requests seen, with an anytime-valid interval.

    A capital is bet for and against every value m of a grid over [-1, 1] (Waudby-Smith and Ramdas 2024,
    hedged capital;
    Waudby-Smith et al. 2022, "Anytime-valid off-policy inference", for weighted values): the interval holds
    the values that neither side has beaten. It covers the running mean drop at all times at once with
    probability 1 - alpha.

    Attributes:
        q_min: the smallest audit probability ever used, so that values D / q lie in [-1 / q_min, 1 / q_min].
        n, audits: requests seen, and how many of them were audited.
        total, squares: sums of D / q and of its square.
        above, below: log-capital per grid value, bet on the mean lying above it or below it.
    """

    q_min: float
    alpha: float = 0.1
    n: int = 0
    audits: int = 0
    total: float = 0.0
    squares: float = 0.0
    above: tuple[float, ...] = (0.0,) * GRID_POINTS
    below: tuple[float, ...] = (0.0,) * GRID_POINTS

    def seen(self, loss: float | None, probability: float) -> DropEstimate:
        """Return the estimate after one accepted request: its loss where audited, None where not.

        Raises:
            ValueError: a probability outside [q_min, 1] or a loss outside [-1, 1].
        """
        if not self.q_min <= probability <= 1.0:
            raise ValueError(f"the audit probability {probability:g} is outside [{self.q_min:g}, 1]")
        if loss is not None and not -1.0 <= loss <= 1.0:
            raise ValueError(f"the loss {loss:g} is outside [-1, 1]")
        return self.after(np.array([0.0 if loss is None else loss / probability]), 0 if loss is None else 1)

    def escalated(self) -> DropEstimate:
        """Return the estimate after a request that the reference answered: its drop is zero for certain."""
        return self.after(np.zeros(1), 0)

    def after(self, values: FloatArray, audits: int) -> DropEstimate:
        """Return the estimate after values D / q [k] in the order they came (0 where not audited), `audits`
        of them audited.
        """
        bound = 1.0 / self.q_min
        if len(values) and float(np.abs(values).max()) > bound * (1 + 1e-9):
            raise ValueError(f"a value D / q lies beyond 1 / q_min = {bound:g}")
        steps = self.n + np.arange(len(values))
        totals = self.total + np.concatenate([[0.0], np.cumsum(values)])
        squares = self.squares + np.concatenate([[0.0], np.cumsum(values**2)])
        prior = PRIOR_SPREAD / self.q_min
        means = totals[:-1] / np.maximum(steps, 1)
        spread = (prior + np.maximum(squares[:-1] - steps * means**2, 0.0)) / (steps + 1)
        bets = np.sqrt(2 * math.log(2 / self.alpha) / (spread * (steps + 1) * np.log(steps + 2)))[:, None]
        gap = values[:, None] - GRID
        up = np.minimum(bets, 0.5 / (GRID + bound))
        down = np.minimum(bets, 0.5 / (bound - GRID))
        return replace(
            self,
            n=self.n + len(values),
            audits=self.audits + audits,
            total=float(totals[-1]),
            squares=float(squares[-1]),
            above=tuple((np.asarray(self.above) + np.log1p(up * gap).sum(axis=0)).tolist()),
            below=tuple((np.asarray(self.below) + np.log1p(-down * gap).sum(axis=0)).tolist()),
        )

    @property
    def mean(self) -> float | None:
        """The estimated drop over all requests seen, None before any."""
        return self.total / self.n if self.n else None

    def interval(self) -> tuple[float, float]:
        """Return the interval of the drop at this moment: the grid values that neither bet has beaten, one
        step wider.
        """
        limit = math.log(2 / self.alpha)
        kept = np.flatnonzero((np.asarray(self.above) < limit) & (np.asarray(self.below) < limit))
        if len(kept) == 0:
            nearest = float(np.clip(self.mean or 0.0, -1.0, 1.0))
            return nearest, nearest
        step = 2.0 / (GRID_POINTS - 1)
        return max(-1.0, float(GRID[kept[0]]) - step), min(1.0, float(GRID[kept[-1]]) + step)

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @staticmethod
    def load(value: dict[str, Any]) -> DropEstimate:
        """Read the JSON form back."""
        return DropEstimate(**{**value, "above": tuple(value["above"]), "below": tuple(value["below"])})
