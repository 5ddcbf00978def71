"""The quality alarm: a lifelong bet that a policy's drop exceeds what was promised."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

BETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class DropAlarm:
    """An e-process for H0 "the mean drop is at most epsilon, at every moment".

    It fires once its wealth reaches 1 / delta. Wealth is the mean over fixed bets b of the product of 1 + b
    (X - epsilon) / (1 / q_min + epsilon), with X = D / q for an audited request and 0 else (Waudby-Smith and
    Ramdas 2024; Ville 1939). False alarms over the whole life have probability at most delta. Mixing fixed
    bets keeps it valid and near the best of them, whatever the size of the change.

    Attributes:
        epsilon: the promised largest drop.
        delta: chance of ever raising a false alarm.
        q_min: smallest audit probability.
        wealth_logs: log-wealth per bet since the start.
        n: requests seen.
        peak: largest log-wealth of the mixture.
        fired_at: n at which it fired first; None while quiet.
    """

    epsilon: float
    delta: float
    q_min: float
    n: int = 0
    wealth_logs: tuple[float, ...] = (0.0,) * len(BETS)
    peak: float = 0.0
    fired_at: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for an epsilon, delta or q_min out of range."""
        if not -1.0 < self.epsilon < 1.0 or not 0.0 < self.delta < 1.0 or not 0.0 < self.q_min <= 1.0:
            raise ValueError("DropAlarm needs -1 < epsilon < 1, 0 < delta < 1 and 0 < q_min <= 1")

    def seen(self, loss: float | None, probability: float) -> DropAlarm:
        """Return the alarm after one request.

        Its loss is in [-1, 1] where it was audited, None where not. An escalated request counts as loss 0 at
        audit probability 1.

        Raises:
            ValueError: a probability outside [q_min, 1] or a loss outside [-1, 1].
        """
        if not self.q_min <= probability <= 1.0:
            raise ValueError(f"the audit probability {probability:g} is outside [{self.q_min:g}, 1]")
        if loss is not None and not -1.0 <= loss <= 1.0:
            raise ValueError(f"the loss {loss:g} is outside [-1, 1]")
        value = 0.0 if loss is None else loss / probability
        scaled = (value - self.epsilon) / (1.0 / self.q_min + self.epsilon)
        logs = tuple(log + math.log1p(bet * scaled) for log, bet in zip(self.wealth_logs, BETS, strict=True))
        n = self.n + 1
        top = max(logs)
        mixture = top + math.log(sum(math.exp(log - top) for log in logs) / len(logs))
        fired = self.fired_at
        if fired is None and mixture >= math.log(1.0 / self.delta):
            fired = n
        return replace(self, n=n, wealth_logs=logs, peak=max(self.peak, mixture), fired_at=fired)

    @property
    def firing(self) -> bool:
        """Whether the alarm has ever fired; it stays on until a new policy starts a new alarm."""
        return self.fired_at is not None

    @property
    def wealth(self) -> float:
        """The mixture's wealth now: evidence against the promise, 1 at the start."""
        return sum(math.exp(min(700.0, log)) for log in self.wealth_logs) / len(BETS)

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @staticmethod
    def load(value: dict[str, Any]) -> DropAlarm:
        """Read the JSON form back."""
        return DropAlarm(**{**value, "wealth_logs": tuple(value["wealth_logs"])})
