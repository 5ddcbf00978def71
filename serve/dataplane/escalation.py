"""What the data plane knows of time and budget when it decides whether to start an escalation. No clock."""

from __future__ import annotations

GAIN = 0.1
FORGET = 0.98


class StageTime:
    """How long a stage takes, learned as TCP learns round trips (RFC 6298): mean plus deviations.

    A request of N texts is expected to take the time of one and N - 1 times the pace of a further one, so
    that a large request does not make the next small one look slow.
    """

    __slots__ = ("_deviation_s", "_mean_s", "_pace_s", "_seen")

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._pace_s = 0.0
        self._deviation_s = 0.0
        self._seen = False

    def expected_s(self, texts: int = 1) -> float:
        """A time that most requests of so many texts keep; 0 before the first answer."""
        return self._mean_s + (texts - 1) * self._pace_s + 2 * self._deviation_s

    def learn(self, seconds: float, texts: int = 1) -> None:
        """Take the time of one request into account."""
        if not self._seen:
            self._seen = True
            self._mean_s = self._pace_s = seconds / texts
            self._deviation_s = self._mean_s / 4
            return
        error = seconds - self._mean_s - (texts - 1) * self._pace_s
        if texts == 1:
            self._mean_s += GAIN * error
        else:
            self._pace_s = max(0.0, self._pace_s + GAIN * error / (texts - 1))
        self._deviation_s += GAIN * (abs(error) / texts - self._deviation_s)

    def doubt(self) -> None:
        """An escalation was not sent because of this estimate: shrink it, so that it is tried again."""
        self._mean_s *= FORGET
        self._pace_s *= FORGET
        self._deviation_s *= FORGET


class EscalationBudget:
    """Holds the share of escalated texts at `rate`: a text earns that much, `burst` at most is saved.

    The cap falls on what is left over, so that a large request may spend all that it has just earned.
    """

    __slots__ = ("_burst", "_credit", "_rate")

    def __init__(self, rate: float, burst: float = 20.0) -> None:
        self._rate = rate
        self._burst = burst if rate > 0 else 0.0
        self._credit = self._burst

    def earn(self, texts: int) -> None:
        """Texts came in."""
        self._credit = min(self._burst, self._credit) + self._rate * texts

    def spend(self, wanted: int) -> int:
        """Take up to `wanted` escalations from the budget; return how many it allows."""
        granted = min(wanted, int(self._credit + 1e-9))
        self._credit -= granted
        return granted
