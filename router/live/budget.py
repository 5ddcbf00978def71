"""The budget controller: holds a long-run escalation rate by moving one threshold.

It never moves it past what was certified.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

OnConflict = Literal["keep_quality", "keep_budget"]
RECENT = 0.01
TOLERANCE = 0.05


@dataclass(frozen=True)
class BudgetController:
    """Quantile tracking: t <- t + eta (rate - 1[s < t]) (Gibbs and Candes 2021; Angelopoulos et al. 2023).

    On any sequence of scores in [0, 1] the escalated share of n requests differs from `rate` by at most
    (1 + eta) / (eta n) while it is free to move. A lower threshold escalates less and so risks more: it
    never goes below `certified` unless the operator ranks the budget above quality.

    Attributes:
        rate: the escalation rate to hold; eta: step; certified: the threshold of the certificate.
        on_conflict: keep_quality clamps at the certified threshold and shows the conflict; keep_budget goes
        below it. tracked: the free threshold of the rule; n, escalations: requests seen and escalated;
        recent: share escalated of about the last 100.
    """

    rate: float
    certified: float
    eta: float = 0.01
    on_conflict: OnConflict = "keep_quality"
    tracked: float | None = None
    n: int = 0
    escalations: int = 0
    recent: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a rate or a step that no stream can be held to."""
        if not 0.0 <= self.rate <= 1.0 or not 0.0 < self.eta <= 1.0 or not math.isfinite(self.certified):
            raise ValueError("BudgetController needs 0 <= rate <= 1, 0 < eta <= 1 and a finite threshold")

    @property
    def threshold(self) -> float:
        """The threshold to use for the next request."""
        free = self.certified if self.tracked is None else self.tracked
        return max(free, self.certified) if self.on_conflict == "keep_quality" else free

    def seen(self, score: float) -> BudgetController:
        """Return the controller after a request of this score, which was decided by `threshold`."""
        used = self.threshold
        escalated = not score >= used
        moved = used + self.eta * (self.rate - escalated)
        tracked = max(moved, self.certified - self.eta) if self.on_conflict == "keep_quality" else moved
        before = self.rate if self.recent is None else self.recent
        return replace(
            self,
            tracked=tracked,
            n=self.n + 1,
            escalations=self.escalations + escalated,
            recent=before + RECENT * (escalated - before),
        )

    @property
    def adapted(self) -> bool:
        """Whether the threshold in use is another than the certified one.

        Then the offline certificate does not describe it.
        """
        return self.threshold != self.certified

    @property
    def in_conflict(self) -> bool:
        """Whether the threshold sits at the certified one and still escalates too much.

        Then an operator must rank the budget and the promise.
        """
        over = self.recent is not None and self.recent > self.rate + TOLERANCE
        return over and self.on_conflict == "keep_quality" and self.threshold <= self.certified + self.eta

    @property
    def escalation_rate(self) -> float | None:
        """The share escalated so far, None before any request."""
        return self.escalations / self.n if self.n else None

    def dump(self) -> dict[str, Any]:
        """Return the JSON form; `BudgetController(**value)` reads it back."""
        return asdict(self)
