"""Auditing live traffic: which accepted answers to check, and what the checks say of the drop.

A request that the cascade accepted is audited with probability q, known before its answer is checked. The
loss D of an audited request is 1[cascade wrong] - 1[reference wrong] (or the disagreement, where no truth
comes in); D / q, and 0 for a request that was not audited, is an unbiased estimate of D (Horvitz and Thompson
1952). Escalated traffic says nothing about accepted traffic.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from router.decide.scores import FloatArray

BETS = np.geomspace(0.003, 0.9, 16)
BISECTIONS = 60


def audit_probabilities(disagreement: FloatArray, rate: float, q_min: float) -> FloatArray:
    """Return audit probabilities [N] proportional to sqrt(P(disagree | score)), of mean `rate`.

    None is below q_min. The square root gives the least variance of the estimate for a given number of audits
    (Neyman allocation of D / q).

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

    An empirical-Bernstein confidence sequence (Howard, Ramdas, McAuliffe and Sekhon 2021, with the
    exponential inequality of Fan, Grama and Liu 2015): for values X in [-1/q_min, 1/q_min] and any guess x
    of the next one made before it is seen, exp(b (sum of X - mu) / c - psi(b) V / c^2) is a supermartingale,
    with c = 1/q_min + 1, psi(b) = -log(1 - b) - b, V = sum of (X - x)^2, and mu the mean of X given the
    past. A mixture over b covers the running mean of these means at all times at once with probability
    1 - alpha, however the drop drifts.

    Attributes:
        q_min: the smallest audit probability ever used, so that values D / q lie in [-1 / q_min, 1 / q_min].
        n, audits: requests seen, and how many of them were audited.
        total: sum of D / q; spread: V, the guess being the mean so far.
    """

    q_min: float
    alpha: float = 0.1
    n: int = 0
    audits: int = 0
    total: float = 0.0
    spread: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a q_min outside (0, 1] or an alpha outside (0, 1)."""
        if not 0.0 < self.q_min <= 1.0 or not 0.0 < self.alpha < 1.0:
            raise ValueError("DropEstimate needs 0 < q_min <= 1 and 0 < alpha < 1")

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
        """Return the estimate after values D / q [k] in the order they came.

        They are 0 where not audited; `audits` of them were audited.
        """
        bound = 1.0 / self.q_min
        if len(values) and float(np.abs(values).max()) > bound * (1 + 1e-9):
            raise ValueError(f"a value D / q lies beyond 1 / q_min = {bound:g}")
        steps = self.n + np.arange(len(values))
        totals = self.total + np.concatenate([[0.0], np.cumsum(values)])
        guesses = np.clip(totals[:-1] / np.maximum(steps, 1), -1.0, 1.0)
        return replace(
            self,
            n=self.n + len(values),
            audits=self.audits + audits,
            total=float(totals[-1]),
            spread=self.spread + float(((values - guesses) ** 2).sum()),
        )

    @property
    def mean(self) -> float | None:
        """The estimated drop over all requests seen, None before any."""
        return self.total / self.n if self.n else None

    def interval(self) -> tuple[float, float]:
        """Return the interval of the mean drop over the requests seen so far, [-1, 1] before any."""
        if self.n == 0:
            return -1.0, 1.0
        scale = 1.0 / self.q_min + 1.0
        paid = (-np.log1p(-BETS) - BETS) * self.spread / scale**2
        limit = math.log(2 * len(BETS) / self.alpha)
        low, high = 0.0, float((limit + paid).min() / BETS[(limit + paid).argmin()])
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            logs = BETS * middle - paid
            top = float(logs.max())
            if top + math.log(float(np.exp(logs - top).sum())) < limit:
                low = middle
            else:
                high = middle
        mean, reach = self.total / self.n, high * scale / self.n
        return max(-1.0, min(1.0, mean - reach)), min(1.0, max(-1.0, mean + reach))

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @staticmethod
    def load(value: dict[str, Any]) -> DropEstimate:
        """Read the JSON form back."""
        return DropEstimate(**value)
